"""The key that a node authenticates with: made on the node's machine, where it stays."""

import hashlib
from base64 import b64decode, b64encode
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from fedperfit.protocol.system.errors import InputError, MalformedFileError
from fedperfit.protocol.system.files import write_atomic

_HASH = ec.ECDSA(hashes.SHA256())


class NodeKey:
    """An ECDSA key on the curve P-384, in OpenSSH form, as Flower has it."""

    def __init__(self, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        """Hold a private key, a newly generated one by default."""
        self._key = key or ec.generate_private_key(ec.SECP384R1())

    @property
    def public(self) -> str:
        """Public key in OpenSSH form, on one line."""
        return self._key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    def sign(self, message: bytes) -> str:
        """Sign a message; return the signature, as hexadecimal digits."""
        return self._key.sign(message, _HASH).hex()

    def write(self, path: Path) -> None:
        """Write the private key to `path`, readable by its owner only."""
        write_atomic(path, self._key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))


def read_node_key(path: Path) -> NodeKey:
    """Read a private key.

    Raises:
        MalformedFileError: Naming the file, if it holds no such key.
    """
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise MalformedFileError(f"{path}: not a node's key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise MalformedFileError(f"{path}: not a node's key")
    return NodeKey(key)


def node_key_signed(public: str, message: bytes, signature: str) -> bool:
    """Return whether a signature verifies.

    Args:
        public: Public key in OpenSSH form.
        message: Message that was signed.
        signature: Signature, as hexadecimal digits.

    Raises:
        InputError: If `public` is not the one text that a node's public key has.
    """
    key = _public(public)
    try:
        key.verify(bytes.fromhex(signature), message, _HASH)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public: str) -> str:
    """Return the fingerprint of a public key in OpenSSH form, as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(b64decode(public.split()[1])).digest()
    return f"SHA256:{b64encode(digest).decode().rstrip('=')}"


def _public(text: str) -> ec.EllipticCurvePublicKey:
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise InputError("the key is not a public key in OpenSSH form") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise InputError("the key is not one on the curve P-384")
    if key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() != text:
        raise InputError("the key is not written as it should be")
    return key
