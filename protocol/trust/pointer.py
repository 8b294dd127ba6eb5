"""The pointer: the cloud's signed word on which release is in force, renewed so often that a stale one shows.

A release is valid for months, so whoever keeps the newest one from an edge is not noticed by its expiry. A
pointer is valid for hours. It also lists the releases that were revoked: what replaces one of them is always
a release of a higher version.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from fedperfit.protocol.system.errors import InputError, MalformedFileError
from fedperfit.protocol.trust.published import MAX_POINTER_BYTES
from fedperfit.protocol.trust.release import MAX_BYTES, Release
from fedperfit.protocol.trust.rotation import Rotation, followed, parse_rotations
from fedperfit.protocol.trust.signing import SigningKey, is_public_key, signed_by
from fedperfit.protocol.trust.validity import parse_time, validity

POINTER_LIFETIME = timedelta(hours=3)
"""Validity of a pointer."""
NONE = 0
"""Version in a pointer when no release is in force."""
_KIND, _FORMAT = "in-force", 1
_HIGHEST = MAX_BYTES // 64
"""Highest version there can be: a release names the digests of all before it."""


@dataclass(frozen=True)
class Pointer:
    """Which release is in force, from `issued` on, for all that the cloud knew then."""

    version: int
    """Version of the release in force; `NONE` if there is none."""
    digest: str
    """Digest of that release; empty if there is none."""
    size: int
    """Size of its file in bytes; 0 if there is none."""
    revoked: tuple[int, ...]
    """Versions that were revoked, ascending."""
    issued: str
    """Time of issue: ISO 8601, UTC, to the second."""
    expires: str
    """End of validity, in the same form."""
    key: str
    """Public key of the signer."""
    rotations: tuple[Rotation, ...] = ()
    """All rotations of keys so far, by version."""
    signature: str = ""
    """Signature of `fields` by that key."""

    @classmethod
    def signed(
        cls,
        release: Release | None,
        key: SigningKey,
        *,
        size: int = 0,
        revoked: tuple[int, ...] = (),
        rotations: tuple[Rotation, ...] = (),
        issued: datetime | None = None,
        lifetime: timedelta = POINTER_LIFETIME,
    ) -> "Pointer":
        """Make and sign a pointer.

        Args:
            release: Release in force; None if there is none.
            key: Signing key in use.
            size: Size of the release's file in bytes.
            revoked: Versions that were revoked, ascending.
            rotations: All rotations of keys so far.
            issued: Time of issue, now by default.
            lifetime: Validity from then on.
        """
        version, digest = (release.version, release.digest) if release is not None else (NONE, "")
        times = validity(issued, lifetime)
        pointer = cls(version, digest, size, revoked, *times, key.public, rotations)
        return replace(pointer, signature=key.sign(_KIND, pointer.fields()))

    @property
    def newest(self) -> int:
        """Highest version that the pointer knows of."""
        return max(self.version, *self.revoked, NONE)

    def fields(self) -> dict[str, Any]:
        """Return the signed fields as JSON values."""
        values = {**asdict(self), "revoked": list(self.revoked), "kind": _KIND, "format": _FORMAT}
        values["rotations"] = [asdict(rotation) for rotation in self.rotations]
        del values["signature"]
        return values

    def to_bytes(self) -> bytes:
        """Encode as the bytes of a pointer's file."""
        return (json.dumps({**self.fields(), "signature": self.signature}, indent=1) + "\n").encode()

    def check_signed_from(self, pinned: str) -> None:
        """Raise InputError unless the key `pinned`, or a key it was rotated to, signed this pointer."""
        if followed(pinned, self.rotations) != self.key:
            raise InputError("it is signed by a foreign key, or one that was rotated out")
        if not signed_by(self.key, _KIND, self.fields(), self.signature):
            raise InputError("its signature does not verify")

    def expired(self, now: datetime) -> bool:
        """Return whether the pointer is no longer valid at the time `now`."""
        return now >= parse_time(self.expires)

    def issued_after(self, now: datetime) -> bool:
        """Return whether the pointer claims to be issued after the time `now`."""
        return parse_time(self.issued) > now


def parse_pointer(data: bytes) -> Pointer:
    """Parse the bytes of a pointer's file; whether to trust the signer, `check_signed_from` decides.

    Raises:
        MalformedFileError: It is too large, not a pointer, or contradicts itself.
    """
    if len(data) > MAX_POINTER_BYTES:
        raise MalformedFileError(f"larger than the {MAX_POINTER_BYTES} bytes a pointer may have")
    try:
        fields = json.loads(data)
        if (fields.pop("kind"), fields.pop("format")) != (_KIND, _FORMAT):
            raise ValueError
        pointer = Pointer(**fields)
        revoked = tuple(pointer.revoked)
        numbers = (pointer.version, pointer.size, *revoked)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise MalformedFileError("truncated, or not a pointer") from None
    rotations = parse_rotations(pointer.rotations, max(pointer.version, *revoked, NONE))
    pointer = replace(pointer, revoked=revoked, rotations=rotations)
    _check(pointer)
    return pointer


def _check(pointer: Pointer) -> None:
    if not is_public_key(pointer.key):
        raise MalformedFileError("its key is not a public key")
    if list(pointer.revoked) != sorted(set(pointer.revoked)) or NONE in pointer.revoked:
        raise MalformedFileError("the versions it revokes are not ascending")
    there = pointer.version != NONE
    digest = is_public_key(pointer.digest) if there else pointer.digest == ""
    if not digest or (pointer.size > 0) is not there:
        raise MalformedFileError("its digest or size does not go with its version")
    if pointer.version in pointer.revoked or pointer.size > MAX_BYTES or pointer.newest > _HIGHEST:
        raise MalformedFileError("what it says is in force cannot be")
    if there and pointer.version < pointer.newest:
        raise MalformedFileError("what replaces a revoked release must be of a higher version")
    if parse_time(pointer.issued) >= parse_time(pointer.expires):
        raise MalformedFileError("it expires before it was issued")
