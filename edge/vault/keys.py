"""Where the key of a vault is kept: a file of its owner, a passphrase, or the system's keyring.

A vault's key is 32 random bytes. What lies beside the vault is an entry, JSON that a keeper turns back
into the key: with a passphrase it is the key sealed under Argon2id of the passphrase, with the keyring
only a name.
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
_SERVICE = "fedperfit"
_LANES, _PASSES, _KIB = 4, 3, 65_536
"""RFC 9106's second recommended setting of Argon2id: 64 MiB."""


class KeyKeeper(ABC):
    """One way of keeping a key."""

    kind: str

    @abstractmethod
    def wrap(self, name: str, key: bytes) -> dict[str, Any]:
        """Keep `key`; the entry by which `unwrap` finds it again."""

    @abstractmethod
    def unwrap(self, name: str, entry: dict[str, Any]) -> bytes:
        """The key of an entry; raises InputError when it cannot be had."""

    def destroy(self, name: str) -> None:  # noqa: B027
        """Delete what is kept elsewhere than in the entry; by default there is nothing."""


class FileKey(KeyKeeper):
    """The key stands in the entry, in a file that only its owner may read."""

    kind = "file"

    def wrap(self, name: str, key: bytes) -> dict[str, Any]:
        """The key itself."""
        return {"key": key.hex()}

    def unwrap(self, name: str, entry: dict[str, Any]) -> bytes:
        """The key itself."""
        return bytes.fromhex(entry["key"])


class PassphraseKey(KeyKeeper):
    """The key is sealed under a passphrase."""

    kind = "passphrase"

    def __init__(self, passphrase: str) -> None:
        if not passphrase:
            raise InputError("the passphrase is empty")
        self._passphrase = passphrase.encode()
        self._by_salt: dict[bytes, bytes] = {}

    def wrap(self, name: str, key: bytes) -> dict[str, Any]:
        """The sealed key, with salt and nonce."""
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        sealed = AESGCM(self._derived(salt)).encrypt(nonce, key, name.encode())
        return {"salt": salt.hex(), "nonce": nonce.hex(), "sealed": sealed.hex()}

    def unwrap(self, name: str, entry: dict[str, Any]) -> bytes:
        """Raises InputError for another passphrase."""
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
    """The key is in the keyring of the system."""

    kind = "keyring"

    def wrap(self, name: str, key: bytes) -> dict[str, Any]:
        """Nothing: the keyring finds it by name."""
        self._ask("set_password", name, key.hex())
        return {}

    def unwrap(self, name: str, entry: dict[str, Any]) -> bytes:
        """Raises InputError when the keyring does not know the key."""
        found = self._ask("get_password", name)
        if found is None:
            raise InputError("the keyring has no key for this vault")
        return bytes.fromhex(found)

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


def asked(kind: str) -> dict[str, str]:
    """The passphrase, where the key is kept by one, as a variable for the agent's environment."""
    if kind != PassphraseKey.kind:
        return {}
    return {PASSPHRASE_VARIABLE: os.environ.get(PASSPHRASE_VARIABLE) or getpass("passphrase of the vault: ")}


def keeper(kind: str) -> KeyKeeper:
    """The keeper of that kind; a passphrase comes from the environment or is asked for."""
    if kind == FileKey.kind:
        return FileKey()
    if kind == KeyringKey.kind:
        return KeyringKey()
    if kind == PassphraseKey.kind:
        return PassphraseKey(asked(kind)[PASSPHRASE_VARIABLE])
    raise InputError(f"key={kind!r}: expected file, passphrase or keyring")
