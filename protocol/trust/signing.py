"""Ed25519 signatures over canonical JSON, with a context for each kind of statement.

A private key is stored as a PKCS8 PEM file that only its owner may read. A public key travels as 64
hexadecimal digits.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fedperfit.protocol.system.errors import InputError, MissingFileError
from fedperfit.protocol.system.files import write_atomic

_PUBLIC = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


class SigningKey:
    """An Ed25519 private key that signs releases and rotations."""

    def __init__(self, key: Ed25519PrivateKey | None = None) -> None:
        """Hold a private key.

        Args:
            key: The key; by default a new one, from the operating system's random numbers.
        """
        self._key = key or Ed25519PrivateKey.generate()

    @property
    def public(self) -> str:
        """Public key, as 64 hexadecimal digits."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, context: str, statement: Any) -> str:
        """Sign a JSON value.

        Args:
            context: Kind of statement, e.g. `release`; a signature is valid in its own context only.
            statement: JSON value.

        Returns:
            The signature, as 128 hexadecimal digits.
        """
        return self._key.sign(_message(context, statement)).hex()

    def write(self, path: Path) -> None:
        """Write the private key as PKCS8 PEM, in the clear and readable by its owner only.

        Args:
            path: File to be written, or replaced whole.
        """
        write_atomic(path, self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def read_signing_key(path: Path) -> SigningKey:
    """Read a private key.

    Raises:
        InputError: Naming the file, if it is missing, broken, or others may read it.
    """
    try:
        mode, data = path.stat().st_mode, path.read_bytes()
        key = load_pem_private_key(data, None)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise InputError(f"{path}: not a private key in PEM form") from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise InputError(f"{path}: others may read this signing key; chmod 600 it, or rotate it")
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path}: not an Ed25519 key")
    return SigningKey(key)


def is_public_key(text: object) -> bool:
    """Return whether `text` has the form of a public key."""
    return isinstance(text, str) and _PUBLIC.fullmatch(text) is not None


def signed_by(public: str, context: str, statement: Any, signature: object) -> bool:
    """Return whether a signature verifies.

    Args:
        public: Public key, as hexadecimal digits.
        context: Kind of statement, e.g. `release`.
        statement: JSON value that was signed.
        signature: Signature, as hexadecimal digits; anything else does not verify.
    """
    if not (isinstance(signature, str) and _SIGNATURE.fullmatch(signature)):
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), _message(context, statement))
    except (InvalidSignature, ValueError):
        return False
    return True


def _message(context: str, statement: Any) -> bytes:
    canonical = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"fedperfit {context}\0{canonical}".encode()
