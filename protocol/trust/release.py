"""A release: the collective shift an edge builds its personal shift on, and perhaps the group's directions,
as one signed file.

Releases form a chain: each names the digests of all before it, so that an edge that missed some can see
that its own stands in the chain, and no release can claim a version that its chain does not explain. Keys
change by a rotation, a statement signed by the old key and the new one; the release it first appears in is
signed by both, and every later one carries it, so that an edge walks from the key it pinned to the one in
use.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.packing import ShiftHeader, pack, unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.shift.shift_file import parse_shift_file, read_shift_file, sha256, shift_file
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.signing import SigningKey, is_public_key, signed_by

FILE_NAME = "release.safetensors"
MAX_BYTES = 16 << 20
LIFETIME = timedelta(days=90)
"""How long a release is valid unless told otherwise."""
_KIND = "release"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_ENVELOPE = {"kind", "format", "signatures"}


@dataclass(frozen=True)
class Rotation:
    """From this version on, `new` signs in place of `old`."""

    version: int
    old: str
    new: str
    by_old: str
    """Signature of the three fields above by the old key."""
    by_new: str

    @classmethod
    def signed(cls, version: int, old: SigningKey, new: SigningKey) -> Self:
        """The statement, signed by both keys."""
        statement = {"version": version, "old": old.public, "new": new.public}
        signatures = (key.sign("rotation", statement) for key in (old, new))
        return cls(version, old.public, new.public, *signatures)

    def valid(self) -> bool:
        """Whether both signatures verify."""
        statement = {"version": self.version, "old": self.old, "new": self.new}
        return signed_by(self.old, "rotation", statement, self.by_old) and signed_by(
            self.new, "rotation", statement, self.by_new
        )


@dataclass(frozen=True)
class Release:
    """One release and all that can be said of it without loading a base model."""

    chain: tuple[str, ...]
    """Digests of all releases before, oldest first."""
    header: ShiftHeader
    packed: bytes
    """The shift, as `protocol.shift.packing` has it."""
    issued: str
    """ISO 8601, UTC, to the second."""
    expires: str
    epsilon: float | None
    """Privacy spent on the contributors' histories; None: not differentially private."""
    key: str
    """Public key that signs."""
    edit: bytes = b""
    """The group's directions, as `protocol.shift.directions` has them; empty for none."""
    rotations: tuple[Rotation, ...] = ()
    """All so far, by version."""
    signatures: dict[str, str] = field(default_factory=dict)
    """Public key to signature of `fields`."""

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
        directions: Directions | None = None,
    ) -> "Release":
        """Version 1 of a chain; issued: now unless given."""
        times = _times(issued, lifetime)
        return cls(
            *((), header, pack(shift, header), *times, epsilon, key.public), edit=_edit(directions)
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
        directions: Directions | None = None,
    ) -> "Release":
        """The release after this one; raises InputError for another task, base model or key."""
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
            edit=_edit(directions),
            signatures={},
        )
        return following._reissued(issued, lifetime)._signed(key)

    def rotated(
        self,
        old: SigningKey,
        new: SigningKey,
        *,
        issued: datetime | None = None,
        lifetime: timedelta = LIFETIME,
    ) -> "Release":
        """The same as the next release, signed by both keys; from now on `new` signs."""
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
        """Counted from 1."""
        return len(self.chain) + 1

    @property
    def shift(self) -> Shift:
        """The collective shift."""
        return unpack(self.packed)[0]

    @property
    def directions(self) -> Directions | None:
        """The group's directions, where it carries some."""
        return Directions.from_bytes(self.edit) if self.edit else None

    @property
    def digest(self) -> str:
        """SHA-256 over every field but the signatures, shift and directions through their own hashes."""
        canonical = json.dumps(self.fields(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def fields(self) -> dict[str, Any]:
        """What is signed, as JSON values."""
        shape = self.header.shape
        carried = {"directions": sha256(self.edit)} if self.edit else {}
        return {
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
        """The file."""
        return shift_file(_KIND, self.packed, {**self.fields(), "signatures": self.signatures}, self.edit)

    def check_signed_from(self, pinned: str) -> None:
        """Raise InputError unless this release is signed by `pinned`, or by what it was rotated to."""
        key, signers = pinned, {self.key}
        retired = {rotation.old for rotation in self.rotations}
        for rotation in self.rotations:
            if rotation.old == key:
                if not rotation.valid():
                    raise InputError("a rotation of keys in it is not signed by both of them")
                key = rotation.new
            if rotation.version == self.version:
                signers.add(rotation.old)
        if self.key != key:
            why = "a key that was rotated out" if self.key in retired else "a foreign key"
            raise InputError(f"it is signed by {why}")
        for signer in signers:
            if not signed_by(signer, "release", self.fields(), self.signatures.get(signer)):
                raise InputError("its signature does not verify")

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return now >= _time(self.expires)

    def issued_after(self, now: datetime) -> bool:
        """Whether it claims to be of a later time."""
        return _time(self.issued) > now

    def _reissued(self, issued: datetime | None, lifetime: timedelta) -> "Release":
        start, end = _times(issued, lifetime)
        return replace(self, issued=start, expires=end)

    def _signed(self, *keys: SigningKey) -> "Release":
        fields = self.fields()
        return replace(self, signatures={key.public: key.sign("release", fields) for key in keys})


def parse_release(data: bytes) -> Release:
    """The release in a file's bytes; whose it is, `check_signed_from` tells.

    Raises InputError when it is truncated or too large, when the shift does not match its hash, when the
    metadata contradicts the shift's own header or the chain, or when a field is missing, unknown or
    malformed.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"larger than the {MAX_BYTES} bytes a release may have")
    return _release(*parse_shift_file(data, _KIND))


def read_release(path: Path) -> Release:
    """The release in `path`; raises InputError as `parse_release` does, naming the file."""
    found = read_shift_file(path, _KIND, MAX_BYTES)
    try:
        return _release(*found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _edit(directions: Directions | None) -> bytes:
    return directions.to_bytes() if directions is not None else b""


def _release(packed: bytes, fields: dict[str, Any], edit: bytes) -> Release:
    _, header = unpack(packed)
    if edit and Directions.from_bytes(edit).neutral.shape[1] != header.shape.hidden_size:
        raise InputError("its directions are of another size than its shift")
    chain, epsilon = fields.get("chain"), fields.get("epsilon")
    if not (isinstance(chain, list) and all(map(is_public_key, chain)) and len(set(chain)) == len(chain)):
        raise InputError("its chain is not a list of distinct digests")
    if fields.get("version") != len(chain) + 1 or type(fields["version"]) is not int:
        raise InputError(f"its version is not explained by a chain of {len(chain)} releases before it")
    if epsilon is not None and not (type(epsilon) is float and math.isfinite(epsilon) and epsilon >= 0):
        raise InputError("its epsilon is not a number of at least 0")
    if not is_public_key(fields.get("key")):
        raise InputError("its key is not a public key")
    signatures = fields.get("signatures")
    if not isinstance(signatures, dict) or not all(isinstance(value, str) for value in signatures.values()):
        raise InputError("its signatures are malformed")
    if _time(fields.get("issued")) >= _time(fields.get("expires")):
        raise InputError("it expires before it was issued")
    release = Release(
        *(tuple(chain), header, packed, fields["issued"], fields["expires"], epsilon, fields["key"]),
        edit=edit,
        rotations=_rotations(fields.get("rotations"), len(chain) + 1),
        signatures=signatures,
    )
    expected = release.fields()
    for name in sorted(set(fields) - _ENVELOPE | set(expected)):
        if name not in expected:
            raise InputError(f"it has an unknown field {name!r}")
        if fields.get(name) != expected[name]:
            raise InputError(f"{name} contradicts the shift's own header")
    return release


def _rotations(values: Any, version: int) -> tuple[Rotation, ...]:
    try:
        rotations = tuple(Rotation(**value) for value in values)
        versions = [rotation.version for rotation in rotations]
        keys = all(is_public_key(key) for rotation in rotations for key in (rotation.old, rotation.new))
        known = all(type(number) is int and 1 < number <= version for number in versions)
    except TypeError:
        raise InputError("its rotations are malformed") from None
    if not (keys and known and versions == sorted(set(versions))):
        raise InputError("its rotations are malformed")
    if any(before.new != after.old for before, after in pairwise(rotations)):
        raise InputError("its rotations do not follow from one another")
    return rotations


def check_chain(releases: Sequence[Release], pinned: str) -> None:
    """Raise InputError unless `releases`, in this order, are one whole chain from the key `pinned`.

    Works offline, and says nothing of whether the last one has expired.
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


def _times(issued: datetime | None, lifetime: timedelta) -> tuple[str, str]:
    start = (issued or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    return start.strftime(_TIME), (start + lifetime).strftime(_TIME)


def _time(text: object) -> datetime:
    try:
        if not isinstance(text, str):
            raise ValueError
        found = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
        if found.strftime(_TIME) != text:
            raise ValueError
        return found
    except ValueError:
        raise InputError("its times are not ISO 8601 in UTC, to the second") from None
