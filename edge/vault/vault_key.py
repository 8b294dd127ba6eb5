"""Reads and writes a vault's key file: `vault.key`, JSON that names the key and holds its keeper's entry.

{"format", "name", "kind", "entry"}, and while a rotation is under way "retiring": the key before, sealed
under the new one, so that a killed rotation is finished by whoever opens the vault next.
"""

import json
import os
import secrets
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedperfit.edge.vault.keys import KEY_BYTES, KeyKeeper
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_atomic

FORMAT = 1
_NONCE = 12


@dataclass(frozen=True, repr=False)
class VaultKey:
    """Key in force, with the one it replaces while a rotation is under way."""

    name: str
    """Random name, by which sealed files tell which key they are under."""
    key: bytes
    """Secret of 32 random bytes."""
    retiring: "VaultKey | None" = None
    """Key before this one, until everything is sealed anew."""

    @classmethod
    def new(cls) -> "VaultKey":
        """A new random key."""
        return cls(secrets.token_hex(8), secrets.token_bytes(KEY_BYTES))

    def replacing(self, old: "VaultKey") -> "VaultKey":
        """This key, with `old` beside it until everything that `old` sealed is sealed anew."""
        return replace(self, retiring=replace(old, retiring=None))

    def named(self, name: str) -> bytes:
        """The 32 bytes of the key with a name; raises InputError when the vault does not have it."""
        for known in (self, self.retiring):
            if known is not None and known.name == name:
                return known.key
        raise InputError("sealed under a key that this vault does not have")


def write_key(path: Path, key: VaultKey, keeper: KeyKeeper) -> None:
    """Have a key kept by its keeper, and write the key file.

    Args:
        path: the key file, which is replaced atomically.
        key: key in force; one that is being retired is written sealed under it.
        keeper: keeps the key.
    """
    fields: dict[str, Any] = {
        "format": FORMAT,
        "name": key.name,
        "kind": keeper.kind,
        "entry": keeper.wrap(key.name, key.key),
    }
    if key.retiring is not None:
        nonce = secrets.token_bytes(_NONCE)
        sealed = AESGCM(key.key).encrypt(nonce, key.retiring.key, key.retiring.name.encode())
        fields["retiring"] = {"name": key.retiring.name, "sealed": (nonce + sealed).hex()}
    write_atomic(path, json.dumps(fields).encode())


def read_key(path: Path, keeper: KeyKeeper) -> VaultKey:
    """Read a key file and get the key from its keeper.

    Args:
        path: the key file.
        keeper: of the kind the key was written with.

    Raises:
        InputError: other users may read the file, it is broken, the key is kept in another way, or the
            keeper cannot give it.
    """
    fields = read_json(path)
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError(f"{path}: others may read it; chmod 600 it, or rotate the key")
    try:
        name, kind, entry = fields["name"], fields["kind"], fields["entry"]
        known = fields["format"] == FORMAT and isinstance(name, str)
    except (TypeError, KeyError):
        raise InputError(f"{path}: not the key of a vault") from None
    if not known:
        raise InputError(f"{path}: not the key of a vault of format {FORMAT}")
    if kind != keeper.kind:
        raise InputError(f"{path}: the key is kept by {kind!r}, not by {keeper.kind!r}")
    try:
        key = keeper.unwrap(name, entry)
        if len(key) != KEY_BYTES:
            raise ValueError
        vault_key = VaultKey(name, key)
        if "retiring" in fields:
            vault_key = vault_key.replacing(_retiring(vault_key, fields["retiring"]))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, InvalidTag):
        raise InputError(f"{path}: the key is broken") from None
    return vault_key


def kept_by(path: Path, otherwise: str) -> str:
    """Return how a key is kept, which a killed rotation may have changed before the settings say so.

    Args:
        path: the key file.
        otherwise: what the settings say, for a vault that has no key yet.

    Raises:
        InputError: the file is not JSON.
    """
    fields = read_json(path) if path.is_file() else None
    kind = fields.get("kind") if isinstance(fields, dict) else None
    return kind if isinstance(kind, str) else otherwise


def rotating(path: Path) -> bool:
    """Whether a rotation of the key was started and not finished."""
    fields = read_json(path)
    return isinstance(fields, dict) and "retiring" in fields


def destroy_key(path: Path, keeper: KeyKeeper) -> None:
    """Overwrite and delete the key file, and have the keeper delete the key where it is kept elsewhere.

    It is renamed first: a kill leaves no key that cannot be read, but a file that the vault sweeps away.

    Args:
        path: the key file.
        keeper: of the kind the key was written with.
    """
    try:
        keeper.destroy(str(read_json(path)["name"]))
    except (KeyError, TypeError):
        pass
    finally:
        path = path.rename(path.with_name(f".{path.name}.destroyed.part"))
        with path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            file.write(secrets.token_bytes(size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()


def _retiring(key: VaultKey, fields: dict[str, str]) -> VaultKey:
    sealed = bytes.fromhex(fields["sealed"])
    old = AESGCM(key.key).decrypt(sealed[:_NONCE], sealed[_NONCE:], fields["name"].encode())
    return VaultKey(fields["name"], old)
