"""The two keys that a client has for sums: one that shares are sealed to, one that it signs with."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from fedperfit.protocol.system.errors import InputError

KEY_BYTES = 32
SIGNATURE_BYTES = 64
_ANYBODY = X25519PrivateKey.from_private_bytes(bytes(range(KEY_BYTES)))
"""A private key that is no secret, by which it is seen whether a public one can be sealed to."""


@dataclass(frozen=True)
class PublicKeys:
    """A client's keys as others know them."""

    box: bytes
    """X25519 key that shares are sealed to, 32 bytes."""
    signing: bytes
    """Ed25519 key that verifies its signatures, 32 bytes."""

    def __post_init__(self) -> None:
        if not len(self.box) == len(self.signing) == KEY_BYTES:
            raise InputError(f"keys for sums are {KEY_BYTES} bytes each")
        try:
            _ANYBODY.exchange(self.sealing)
        except ValueError:  # of small order: no contributor could seal to a committee with it
            raise InputError("keys for sums: nothing can be sealed to this one") from None

    @classmethod
    def from_hex(cls, text: str) -> "PublicKeys":
        """Read what `hex` made; raises InputError for anything else."""
        try:
            data = bytes.fromhex(text)
        except ValueError:
            raise InputError("keys for sums are hexadecimal digits") from None
        return cls(data[:KEY_BYTES], data[KEY_BYTES:])

    @property
    def hex(self) -> str:
        """Both keys, 128 hexadecimal digits."""
        return self.box.hex() + self.signing.hex()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return whether the client signed these bytes."""
        try:
            Ed25519PublicKey.from_public_bytes(self.signing).verify(signature, data)
        except InvalidSignature:
            return False
        return True

    @property
    def sealing(self) -> X25519PublicKey:
        """The key that shares are sealed to."""
        return X25519PublicKey.from_public_bytes(self.box)


class SumKeys:
    """A client's private keys."""

    def __init__(self, box: X25519PrivateKey, signing: Ed25519PrivateKey) -> None:
        """Hold two keys.

        Args:
            box: Key that opens shares.
            signing: Key that signs.
        """
        self.box, self._signing = box, signing

    @classmethod
    def new(cls) -> "SumKeys":
        """Draw keys from the operating system."""
        return cls(X25519PrivateKey.generate(), Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, data: bytes) -> "SumKeys":
        """Read what `to_bytes` made; raises InputError for another length."""
        if len(data) != 2 * KEY_BYTES:
            raise InputError(f"keys for sums of {len(data)} bytes, expected {2 * KEY_BYTES}")
        box, signing = data[:KEY_BYTES], data[KEY_BYTES:]
        return cls(X25519PrivateKey.from_private_bytes(box), Ed25519PrivateKey.from_private_bytes(signing))

    def to_bytes(self) -> bytes:
        """Return both private keys, 64 bytes."""
        return self.box.private_bytes_raw() + self._signing.private_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """Return the signature over these bytes, 64 bytes."""
        return self._signing.sign(data)

    @property
    def public(self) -> PublicKeys:
        """What others may know."""
        box, signing = self.box.public_key(), self._signing.public_key()
        return PublicKeys(box.public_bytes_raw(), signing.public_bytes_raw())


@dataclass(frozen=True, eq=False)
class Directory:
    """The clients that are enrolled, with their keys: what cloud and edges must know alike."""

    keys: Mapping[str, PublicKeys]
    """Keys by the client's name."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all names and keys."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def of(self, name: str) -> PublicKeys:
        """Return a client's keys; raises InputError for one that is not enrolled."""
        if name not in self.keys:
            raise InputError(f"{name} is not enrolled for sums")
        return self.keys[name]

    def to_json(self) -> dict[str, list[str]]:
        """Return both keys in hex by name."""
        return {name: [keys.box.hex(), keys.signing.hex()] for name, keys in sorted(self.keys.items())}

    def to_bytes(self) -> bytes:
        """Encode as the bytes that a release carries."""
        return json.dumps(self.to_json(), separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Directory":
        """Read what `to_bytes` made; raises InputError for anything else."""
        try:
            directory = cls.from_json(json.loads(data))
        except (ValueError, RecursionError):
            raise InputError("not a directory of keys for sums") from None
        if directory.to_bytes() != data:
            raise InputError("a directory of keys for sums that is not written as it should be")
        return directory

    @classmethod
    def from_json(cls, value: object) -> "Directory":
        """Read what `to_json` made; raises InputError for anything else."""
        try:
            assert isinstance(value, dict)
            read = {
                str(name): PublicKeys(bytes.fromhex(box), bytes.fromhex(signing))
                for name, (box, signing) in value.items()
            }
        except (AssertionError, TypeError, ValueError):
            raise InputError("not a directory of keys for sums") from None
        return cls(read)
