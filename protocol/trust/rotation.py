"""A change of the signing key: stated by the old and the new key, and carried by all that is signed later."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

from fedperfit.protocol.system.errors import InputError, MalformedFileError
from fedperfit.protocol.trust.signing import SigningKey, is_public_key, signed_by


@dataclass(frozen=True)
class Rotation:
    """A change of the signing key: from `version` on, `new` signs in place of `old`."""

    version: int
    """First release signed by the new key."""
    old: str
    """Public key that is retired."""
    new: str
    """Public key that replaces it."""
    by_old: str
    """Signature of the three fields above by the old key."""
    by_new: str
    """Signature of the same fields by the new key."""

    @classmethod
    def signed(cls, version: int, old: SigningKey, new: SigningKey) -> Self:
        """Make a rotation signed by both keys.

        Args:
            version: First release signed by the new key.
            old: Key that is retired.
            new: Key that replaces it.
        """
        statement = {"version": version, "old": old.public, "new": new.public}
        signatures = (key.sign("rotation", statement) for key in (old, new))
        return cls(version, old.public, new.public, *signatures)

    def valid(self) -> bool:
        """Return whether both signatures verify."""
        statement = {"version": self.version, "old": self.old, "new": self.new}
        return signed_by(self.old, "rotation", statement, self.by_old) and signed_by(
            self.new, "rotation", statement, self.by_new
        )


def followed(pinned: str, rotations: Sequence[Rotation]) -> str:
    """Return the key that a pinned key was rotated to; the pinned key itself where it was not.

    Args:
        pinned: Public key to trust.
        rotations: All rotations so far, by version.

    Raises:
        InputError: If a rotation of the key is not signed by both keys.
    """
    key = pinned
    for rotation in rotations:
        if rotation.old == key:
            if not rotation.valid():
                raise InputError("a rotation of keys in it is not signed by both of them")
            key = rotation.new
    return key


def keys_from(pinned: str, rotations: Sequence[Rotation]) -> list[str]:
    """List the keys from a pinned one on, the one in force last; `followed` must have accepted them.

    Args:
        pinned: Public key to trust.
        rotations: All rotations so far, by version.
    """
    keys = [pinned]
    for rotation in rotations:
        if rotation.old == keys[-1]:
            keys.append(rotation.new)
    return keys


def parse_rotations(values: Any, version: int) -> tuple[Rotation, ...]:
    """Read rotations from JSON values; whether their signatures verify, `followed` tells.

    Args:
        values: JSON values of all rotations, by version.
        version: Version of the release they come with, which none may exceed.

    Raises:
        MalformedFileError: They are no rotations, or do not follow one another.
    """
    try:
        rotations = tuple(Rotation(**value) for value in values)
        versions = [rotation.version for rotation in rotations]
        keys = all(is_public_key(key) for rotation in rotations for key in (rotation.old, rotation.new))
        known = all(type(number) is int and 1 < number <= version for number in versions)
    except TypeError:
        raise MalformedFileError("its rotations are malformed") from None
    if not (keys and known and versions == sorted(set(versions))):
        raise MalformedFileError("its rotations are malformed")
    if any(before.new != after.old for before, after in pairwise(rotations)):
        raise MalformedFileError("its rotations do not follow one another")
    return rotations
