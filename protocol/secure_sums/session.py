"""One sum: all that its parties must know alike, and the committee that is drawn for it.

    rank(client) = SHA-256(release in force, directory of the enrolled, client)

The members are the first k by rank. The cloud chooses neither: the release is signed and each edge knows the
one in force, and the directory comes with the enrolment. Every signature and seal covers the session's
digest, so that nothing made for one sum has a meaning in another.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

from fedperfit.protocol.secure_sums.fixed_point import FixedPoint
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.secure_sums.parameters import CommitteeShape
from fedperfit.protocol.system.errors import InputError


def draw_committee(directory: Directory, release: str, size: int) -> tuple[str, ...]:
    """Return the names of a committee's members, in the order of their places.

    Args:
        directory: All that are enrolled.
        release: Digest of the release in force; empty before the first.
        size: Number of members.

    Raises:
        InputError: If fewer are enrolled.
    """
    if len(directory.keys) < size:
        raise InputError(f"committee-size={size}: only {len(directory.keys)} clients are enrolled")
    seed = f"{release}/{directory.digest}"
    return tuple(sorted(directory.keys, key=lambda name: _digest([seed, name]))[:size])


@dataclass(frozen=True)
class Session:
    """The sum of one round."""

    run: str
    """Random name of the training that it belongs to."""
    round: int
    """Round, counted from 1."""
    agreement: str
    """What else was agreed on, in hex: the basis, and what was broadcast."""
    shape: CommitteeShape
    """Numbers of the committee."""
    numbers: FixedPoint
    """How updates become whole numbers."""
    least: int
    """Fewest clients whose sum a member tells."""
    release: str
    """Digest of the release in force; empty before the first."""
    directory: Directory
    """All that are enrolled."""

    def __post_init__(self) -> None:
        if self.least < 2:
            raise InputError(f"fewest-contributors={self.least}: a sum needs at least 2 clients")

    @cached_property
    def members(self) -> tuple[str, ...]:
        """Names of the committee's members, in the order of their places."""
        return draw_committee(self.directory, self.release, self.shape.size)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all this, 32 bytes."""
        told: Mapping[str, object] = {
            "run": self.run,
            "round": self.round,
            "agreement": self.agreement,
            "shape": asdict(self.shape),
            "numbers": asdict(self.numbers),
            "least": self.least,
            "release": self.release,
            "directory": self.directory.digest,
        }
        return bytes.fromhex(_digest(told))

    @property
    def columns(self) -> int:
        """Elements of one share."""
        return self.shape.columns(self.numbers.numbers)

    def place(self, member: str) -> int:
        """Return a member's place, from 0; raises InputError for a client that is none."""
        if member not in self.members:
            raise InputError(f"{member} is not a member of the committee")
        return self.members.index(member)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
