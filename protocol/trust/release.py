"""A release: the collective shift an edge builds its personal shift on, as one signed file, and perhaps the
group's directions, the basis of personal shifts and the prior over people, and the clients that committees of
secure sums are drawn from.

Releases form a chain: each names the digests of all before it, so that an edge that missed some can see
that its own belongs to the chain, and no release can claim a version that its chain does not explain. Keys
change by a rotation, a statement signed by the old and the new key; the release it first appears in is
signed by both, and every later one carries it, so that an edge can follow from the key it pinned to the
current one.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from fedperfit.protocol.people.people import People
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.packing import ShiftHeader, pack, unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.shift.shift_file import DIRECTIONS, MEMBERS, PEOPLE, sha256, shift_file
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import own_text
from fedperfit.protocol.trust.rotation import Rotation, followed
from fedperfit.protocol.trust.signing import SigningKey, signed_by
from fedperfit.protocol.trust.validity import parse_time, validity

MAX_BYTES = 16 << 20
"""Largest release accepted, in bytes."""
LIFETIME = timedelta(days=90)
"""Default validity of a release."""
KIND = "release"
"""Kind that a release's file names in its metadata."""
_CONTENT = ("header", "packed", "epsilon", "delta", "edit", "crowd")


@dataclass(frozen=True)
class Release:
    """One release, with everything that can be checked without loading a base model."""

    chain: tuple[str, ...]
    """Digests of all releases before this one, oldest first."""
    header: ShiftHeader
    """Description of the shift."""
    packed: bytes
    """Collective shift as `protocol.shift.packing` encodes it."""
    issued: str
    """Time of issue: ISO 8601, UTC, to the second."""
    expires: str
    """End of validity, in the same form."""
    epsilon: float | None
    """User-level differential privacy of the chain so far: what any one contributor, with all its items and
    in all rounds, changes; counted by adding or removing it. None without."""
    key: str
    """Public key of the signer."""
    delta: float | None = None
    """Delta that epsilon holds at; None without epsilon, and in releases of earlier versions."""
    edit: bytes = b""
    """Directions of the group as `protocol.shift.directions` encodes them; empty for none."""
    crowd: bytes = b""
    """Basis of personal shifts and prior over people as `protocol.people` encodes them; empty for none."""
    members: bytes = b""
    """Clients enrolled for secure sums, with their keys, as `Directory` encodes them; empty for none. The
    releases that follow carry the same, until one names others."""
    task_text: str = ""
    """Text of the task's file, whose digest ends the task's name in the header; empty for one that ships."""
    rotations: tuple[Rotation, ...] = ()
    """All rotations so far, by version."""
    signatures: dict[str, str] = field(default_factory=dict)
    """Signatures of `fields` by public key."""

    @classmethod
    def first(
        cls,
        shift: Shift,
        header: ShiftHeader,
        key: SigningKey,
        *,
        issued: datetime | None = None,
        lifetime: timedelta = LIFETIME,
        epsilon: float | None = None,
        delta: float | None = None,
        directions: Directions | None = None,
        people: People | None = None,
        members: Directory | None = None,
    ) -> "Release":
        """Make and sign version 1 of a chain.

        Args:
            shift: The collective shift.
            header: Its description.
            key: Signing key of the cloud.
            issued: Time of issue, now by default.
            lifetime: Validity from then on.
            epsilon: Privacy budget spent; None without differential privacy.
            delta: Delta that it holds at.
            directions: The group's directions, if any.
            people: Basis of personal shifts and prior over people, if any.
            members: Clients enrolled for secure sums, if any.
        """
        times = validity(issued, lifetime)
        return cls(
            *((), header, pack(shift, header), *times, epsilon, key.public),
            delta=delta,
            edit=_encoded(directions),
            crowd=_encoded(people),
            members=_encoded(members),
            task_text=own_text(header.task),
        )._signed(key)

    def next(
        self,
        shift: Shift,
        header: ShiftHeader,
        key: SigningKey,
        *,
        issued: datetime | None = None,
        lifetime: timedelta = LIFETIME,
        epsilon: float | None = None,
        delta: float | None = None,
        directions: Directions | None = None,
        people: People | None = None,
    ) -> "Release":
        """Make and sign the release after this one.

        Args:
            shift: The collective shift.
            header: Its description; task and base model as before.
            key: Signing key, the one that signed this release.
            issued: Time of issue, now by default.
            lifetime: Validity from then on.
            epsilon: Privacy budget spent; None without differential privacy.
            delta: Delta that it holds at.
            directions: The group's directions, if any.
            people: Basis of personal shifts and prior over people, if any.

        Raises:
            InputError: If task, base model or key differ from this release's.
        """
        if (header.task, header.fingerprint) != (self.header.task, self.header.fingerprint):
            raise InputError("a release chain stays with one task and one base model")
        if key.public != self.key:
            raise InputError("a new key needs a rotation")
        following = replace(
            self,
            chain=(*self.chain, self.digest),
            header=header,
            packed=pack(shift, header),
            epsilon=epsilon,
            delta=delta,
            edit=_encoded(directions),
            crowd=_encoded(people),
            signatures={},
        )
        return following._reissued(issued, lifetime)._signed(key)

    def followed_by(
        self,
        earlier: "Release",
        key: SigningKey,
        *,
        issued: datetime | None = None,
        lifetime: timedelta = LIFETIME,
        members: Directory | None = None,
    ) -> "Release":
        """Release the content of an earlier release again, as the one after this.

        Args:
            earlier: Release of the same chain.
            key: Signing key, the one that signed this release.
            issued: Time of issue, now by default.
            lifetime: Validity from then on.
            members: Clients enrolled for secure sums from now on; None keeps those of this release.

        Raises:
            InputError: If `key` did not sign this release.
        """
        if key.public != self.key:
            raise InputError("a new key needs a rotation")
        content = {name: getattr(earlier, name) for name in _CONTENT}
        content["members"] = _encoded(members) or self.members
        following = replace(self, chain=(*self.chain, self.digest), **content, signatures={})
        return following._reissued(issued, lifetime)._signed(key)

    def rotated(
        self,
        old: SigningKey,
        new: SigningKey,
        *,
        issued: datetime | None = None,
        lifetime: timedelta = LIFETIME,
    ) -> "Release":
        """Release this content again under a new key, signed by both keys.

        Args:
            old: Key that signed this release.
            new: Key that signs from now on.
            issued: Time of issue, now by default.
            lifetime: Validity from then on.

        Raises:
            InputError: If `old` did not sign this release.
        """
        if old.public != self.key:
            raise InputError("the old key is not the one that signed the latest release")
        rotation = Rotation.signed(self.version + 1, old, new)
        following = replace(
            self,
            chain=(*self.chain, self.digest),
            key=new.public,
            rotations=(*self.rotations, rotation),
            signatures={},
        )
        return following._reissued(issued, lifetime)._signed(old, new)

    @property
    def version(self) -> int:
        """Position in the chain, counted from 1."""
        return len(self.chain) + 1

    @property
    def shift(self) -> Shift:
        """The collective shift, unpacked anew at each access."""
        return unpack(self.packed)[0]

    @property
    def directions(self) -> Directions | None:
        """The group's directions, or None."""
        return Directions.from_bytes(self.edit) if self.edit else None

    @property
    def people(self) -> People | None:
        """Basis of personal shifts and prior over people, or None."""
        return People.from_bytes(self.crowd) if self.crowd else None

    @property
    def directory(self) -> Directory | None:
        """Clients enrolled for secure sums, with their keys, or None."""
        return Directory.from_bytes(self.members) if self.members else None

    @property
    def promise(self) -> str:
        """What the release tells of any one contributor, in words; empty without differential privacy."""
        if self.epsilon is None:
            return ""
        return f"epsilon {self.epsilon:.4g}" + ("" if self.delta is None else f" at delta {self.delta:g}")

    @property
    def digest(self) -> str:
        """SHA-256 over every field but the signatures; all that it carries enters by its own hash."""
        canonical = json.dumps(self.fields(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def fields(self) -> dict[str, Any]:
        """Return the signed fields as JSON values."""
        shape = self.header.shape
        carried = {name: sha256(part) for name, part in self._parts.items() if part}
        if self.task_text:
            carried["task-text"] = self.task_text
        promise = {} if self.delta is None else {"delta": self.delta}
        return {
            **promise,
            **carried,
            "version": self.version,
            "chain": list(self.chain),
            "fingerprint": self.header.fingerprint,
            "task": self.header.task,
            "layers": list(shape.layers),
            "positions": str(shape.positions),
            "rank": shape.rank,
            "hidden-size": shape.hidden_size,
            "rounds": self.header.round,
            "dtype": self.header.dtype,
            "epsilon": self.epsilon,
            "issued": self.issued,
            "expires": self.expires,
            "key": self.key,
            "rotations": [asdict(rotation) for rotation in self.rotations],
            "sha256": sha256(self.packed),
        }

    def to_bytes(self) -> bytes:
        """Encode as the bytes of a release file."""
        return shift_file(KIND, self.packed, {**self.fields(), "signatures": self.signatures}, self._parts)

    def check_signed_from(self, pinned: str) -> None:
        """Raise InputError unless the key `pinned`, or a key it was rotated to, signed this release."""
        key, signers = followed(pinned, self.rotations), {self.key}
        signers |= {rotation.old for rotation in self.rotations if rotation.version == self.version}
        if self.key != key:
            retired = {rotation.old for rotation in self.rotations}
            why = "a key that was rotated out" if self.key in retired else "a foreign key"
            raise InputError(f"it is signed by {why}")
        for signer in signers:
            if not signed_by(signer, "release", self.fields(), self.signatures.get(signer)):
                raise InputError("its signature does not verify")

    def expired(self, now: datetime) -> bool:
        """Return whether the release is no longer valid at the time `now`."""
        return now >= parse_time(self.expires)

    def issued_after(self, now: datetime) -> bool:
        """Return whether the release claims to be issued after the time `now`."""
        return parse_time(self.issued) > now

    @property
    def _parts(self) -> dict[str, bytes]:
        return {DIRECTIONS: self.edit, PEOPLE: self.crowd, MEMBERS: self.members}

    def _reissued(self, issued: datetime | None, lifetime: timedelta) -> "Release":
        start, end = validity(issued, lifetime)
        return replace(self, issued=start, expires=end)

    def _signed(self, *keys: SigningKey) -> "Release":
        fields = self.fields()
        return replace(self, signatures={key.public: key.sign("release", fields) for key in keys})


def _encoded(part: Directions | People | Directory | None) -> bytes:
    return part.to_bytes() if part is not None else b""


def check_chain(releases: Sequence[Release], pinned: str) -> None:
    """Check that releases are one whole chain; this works offline, and does not look at expiry.

    Args:
        releases: All releases, oldest first.
        pinned: Public key to trust, that of the first release.

    Raises:
        InputError: Naming the first release that does not follow or whose signature does not verify.
    """
    digests: list[str] = []
    for release in releases:
        if release.chain != tuple(digests):
            raise InputError(f"release {release.version} does not follow from the {len(digests)} before it")
        try:
            release.check_signed_from(pinned)
        except InputError as error:
            raise InputError(f"release {release.version}: {error}") from None
        digests.append(release.digest)
