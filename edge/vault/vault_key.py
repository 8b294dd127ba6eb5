"""The key of a vault on disk: `vault.key`, JSON that names the key and holds its keeper's entry.

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
    """The key in force, and the one it replaces while a rotation is under way."""

    name: str
    key: bytes
    retiring: "VaultKey | None" = None

    @classmethod
    def new(cls) -> "VaultKey":
        """Random."""
        return cls(secrets.token_hex(8), secrets.token_bytes(KEY_BYTES))

    def replacing(self, old: "VaultKey") -> "VaultKey":
        """This key while what `old` sealed is not all sealed anew."""
        return replace(self, retiring=replace(old, retiring=None))

    def named(self, name: str) -> bytes:
        """The key of that name; raises InputError for one that is not here."""
        for known in (self, self.retiring):
            if known is not None and known.name == name:
                return known.key
        raise InputError("sealed under a key that this vault does not have")


def write_key(path: Path, key: VaultKey, keeper: KeyKeeper) -> None:
    """Keep `key` by `keeper`; its entry goes to `path`."""
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
    """The key whose entry is in `path`.

    Raises InputError when others than its owner may read it, when it is broken, kept in another way, or
    not to be had from its keeper.
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
        found = VaultKey(name, key)
        if "retiring" in fields:
            found = found.replacing(_retiring(found, fields["retiring"]))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, InvalidTag):
        raise InputError(f"{path}: the key is broken") from None
    return found


def rotating(path: Path) -> bool:
    """Whether a rotation was begun and not finished."""
    fields = read_json(path)
    return isinstance(fields, dict) and "retiring" in fields


def destroy_key(path: Path, keeper: KeyKeeper) -> None:
    """Overwrite and delete the entry, and what the keeper holds elsewhere."""
    try:
        keeper.destroy(str(read_json(path)["name"]))
    except (KeyError, TypeError):
        pass
    finally:
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
