"""Keeps the key of a vault: in a file of its owner, under a passphrase, or in the system's keyring.

A vault's key is 32 random bytes. Beside the vault lies an entry, JSON that a keeper turns back into the key:
with a passphrase it is the key sealed under Argon2id (RFC 9106) of the passphrase, with the keyring nothing.
"""

import os
import secrets
from abc import ABC, abstractmethod
from getpass import getpass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from fedperfit.protocol.system.errors import InputError

KEY_BYTES = 32
PASSPHRASE_VARIABLE = "FEDPERFIT_PASSPHRASE"
NEW_PASSPHRASE_VARIABLE = "FEDPERFIT_NEW_PASSPHRASE"
"""Environment variable with the passphrase that a rotation changes to."""
_SERVICE = "fedperfit"
_LANES, _PASSES, _KIB = 4, 3, 65_536
"""RFC 9106's second recommended setting of Argon2id: 64 MiB."""


class KeyKeeper(ABC):
    """Interface of the means to keep a key."""

    kind: str
    """Name of the means, as in the key file and in settings."""

    @abstractmethod
    def wrap(self, name: str, key: bytes) -> dict[str, Any]:
        """Keep a key.

        Args:
            name: name of the key.
            key: 32 bytes.

        Returns:
            The entry, JSON values, from which `unwrap` gets the key again.
        """

    @abstractmethod
    def unwrap(self, name: str, entry: dict[str, Any]) -> bytes:
        """Get a key again.

        Args:
            name: name of the key.
            entry: result of `wrap`.

        Raises:
            InputError: the key cannot be had: another passphrase, or no such key in the keyring.
        """

    def destroy(self, name: str) -> None:  # noqa: B027
        """Delete the key where it is kept outside the entry; by default it is not."""


class FileKey(KeyKeeper):
    """Keeps the key in the entry, in a file that only its owner may read."""

    kind = "file"

    def wrap(self, name: str, key: bytes) -> dict[str, Any]:
        """Return an entry with the key itself; see `KeyKeeper.wrap`."""
        return {"key": key.hex()}

    def unwrap(self, name: str, entry: dict[str, Any]) -> bytes:
        """Read the key from the entry; see `KeyKeeper.unwrap`."""
        return bytes.fromhex(entry["key"])


class PassphraseKey(KeyKeeper):
    """Keeps the key sealed under a passphrase (AES-256-GCM, Argon2id)."""

    kind = "passphrase"

    def __init__(self, passphrase: str) -> None:
        """Derive nothing until it is needed; raises InputError for an empty passphrase."""
        if not passphrase:
            raise InputError("the passphrase is empty")
        self._passphrase = passphrase.encode()
        self._by_salt: dict[bytes, bytes] = {}

    def wrap(self, name: str, key: bytes) -> dict[str, Any]:
        """Return an entry with the sealed key, salt and nonce; see `KeyKeeper.wrap`."""
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        sealed = AESGCM(self._derived(salt)).encrypt(nonce, key, name.encode())
        return {"salt": salt.hex(), "nonce": nonce.hex(), "sealed": sealed.hex()}

    def unwrap(self, name: str, entry: dict[str, Any]) -> bytes:
        """Unseal the key; raises InputError for another passphrase; see `KeyKeeper.unwrap`."""
        salt, nonce, sealed = (bytes.fromhex(entry[field]) for field in ("salt", "nonce", "sealed"))
        try:
            return AESGCM(self._derived(salt)).decrypt(nonce, sealed, name.encode())
        except InvalidTag:
            raise InputError("the passphrase does not open this vault") from None

    def _derived(self, salt: bytes) -> bytes:
        if salt not in self._by_salt:
            kdf = Argon2id(salt=salt, length=KEY_BYTES, iterations=_PASSES, lanes=_LANES, memory_cost=_KIB)
            self._by_salt[salt] = kdf.derive(self._passphrase)
        return self._by_salt[salt]


class KeyringKey(KeyKeeper):
    """Keeps the key in the keyring of the system."""

    kind = "keyring"

    def wrap(self, name: str, key: bytes) -> dict[str, Any]:
        """Put the key into the keyring and return an empty entry; see `KeyKeeper.wrap`."""
        self._ask("set_password", name, key.hex())
        return {}

    def unwrap(self, name: str, entry: dict[str, Any]) -> bytes:
        """Get the key from the keyring; raises InputError without one; see `KeyKeeper.unwrap`."""
        password = self._ask("get_password", name)
        if password is None:
            raise InputError("the keyring has no key for this vault")
        return bytes.fromhex(password)

    def destroy(self, name: str) -> None:
        """Delete the key from the keyring."""
        if self._ask("get_password", name) is not None:
            self._ask("delete_password", name)

    @staticmethod
    def _ask(call: str, *arguments: str) -> str | None:
        import keyring
        from keyring.errors import KeyringError

        try:
            answer: str | None = getattr(keyring, call)(_SERVICE, *arguments)
            return answer
        except KeyringError as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"the system's keyring cannot be used ({reason})") from None


UNPROTECTED = {
    FileKey.kind: "a file beside the vault: who can read this folder, or a copy of it, can open the vault",
    PassphraseKey.kind: "a passphrase: the vault is as safe as the passphrase is hard to guess",
    KeyringKey.kind: "the system's keyring: programs that run as you can ask for it while you are logged in",
}
"""Where each kind of keeper has the key, and whom that does not keep out."""


def passphrase_variable(kind: str, *, new: bool = False) -> dict[str, str]:
    """Return the environment variable with the passphrase, asked for where it is not set.

    Args:
        kind: kind of keeper; there is no variable for others than passphrase.
        new: whether there is no vault yet; then the passphrase is asked for twice.

    Raises:
        InputError: the two entries differ.
    """
    if kind != PassphraseKey.kind:
        return {}
    given = os.environ.get(PASSPHRASE_VARIABLE) or _entered("passphrase of the vault", twice=new)
    return {PASSPHRASE_VARIABLE: given}


def keeper(kind: str, *, new: bool = False) -> KeyKeeper:
    """Make the keeper of a kind: file, passphrase or keyring.

    A passphrase comes from the environment or is asked for.

    Args:
        kind: kind of keeper.
        new: whether there is no vault yet; then a passphrase is asked for twice.

    Raises:
        InputError: there is no such kind, or the passphrase is empty or was not entered twice alike.
    """
    passphrase = passphrase_variable(kind, new=new)
    return _keeper(kind, passphrase.get(PASSPHRASE_VARIABLE, ""))


def next_keeper(kind: str, before: str) -> KeyKeeper:
    """Make the keeper that a rotation changes to; a new passphrase is asked for twice.

    Args:
        kind: kind of the keeper.
        before: kind of the keeper in use; only where that has no passphrase may the new one come from the
            variable of the present one.

    Raises:
        InputError: as `keeper`.
    """
    passphrase = ""
    if kind == PassphraseKey.kind:
        present = "" if before == PassphraseKey.kind else os.environ.get(PASSPHRASE_VARIABLE, "")
        given = os.environ.get(NEW_PASSPHRASE_VARIABLE) or present
        passphrase = given or _entered("new passphrase of the vault", twice=True)
    return _keeper(kind, passphrase)


def _entered(what: str, *, twice: bool) -> str:
    given = getpass(f"{what}: ")
    if twice and getpass(f"{what}, once more: ") != given:
        raise InputError("the two passphrases differ")
    return given


def _keeper(kind: str, passphrase: str) -> KeyKeeper:
    if kind == FileKey.kind:
        return FileKey()
    if kind == KeyringKey.kind:
        return KeyringKey()
    if kind == PassphraseKey.kind:
        return PassphraseKey(passphrase)
    raise InputError(f"key={kind!r}: expected file, passphrase or keyring")
