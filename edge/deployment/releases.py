"""Keeps the releases an edge has verified; a refused one leaves the last good one in force.

One file per release. Nothing else is kept: what is trusted follows from the key pinned at enrolment and
from the files, which are verified again whenever they are read.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from threading import Lock

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.trust.release import Release, parse_release, read_release

_SKEW = timedelta(hours=1)
"""Greatest difference between the clocks of cloud and edge."""


class ReleaseStore:
    """Store of one cloud's releases for one task and base model."""

    def __init__(
        self,
        folder: Path,
        *,
        pinned: str,
        fingerprint: str,
        task: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Read nothing until it is needed.

        Args:
            folder: holds one file per release.
            pinned: the cloud's public key from the enrolment, 64 hexadecimal digits.
            fingerprint: fingerprint of the base model.
            task: name of the LaMP task.
            clock: tells the time in UTC.
        """
        self.folder = folder
        self._pinned, self._fingerprint, self._task, self._clock = pinned, fingerprint, task, clock
        self._accepting = Lock()

    def accept(self, data: bytes, check: Callable[[Release], None] = lambda release: None) -> Release:
        """Verify a release and keep it; one that is in force already changes nothing.

        Args:
            data: bytes of the release.
            check: called with the verified release before it is kept; what it raises keeps it from being so.

        Raises:
            InputError: the release is malformed, of another task or base model, not signed by the cloud,
                expired, older than the one in force or in conflict with it; nothing is changed.
        """
        with self._accepting:
            try:
                release, news = self._verified(parse_release(data))
            except InputError as error:
                raise InputError(f"release refused: {error}") from None
            check(release)
            if news:
                write_atomic(self.folder / f"{release.version:08d}.safetensors", data)
            return release

    def current(self) -> Release | None:
        """The latest release that verifies, expired or not; None before the first."""
        for path in sorted(self.folder.glob("*.safetensors"), reverse=True):
            try:
                release = read_release(path)
                self._check(release, self._pinned)
                return release
            except InputError:
                continue
        return None

    def all(self) -> list[Release]:
        """Every release kept, oldest first; raises InputError for one that is broken."""
        return [read_release(path) for path in sorted(self.folder.glob("*.safetensors"))]

    def verify(self) -> None:
        """Check all releases kept, offline.

        Releases may be missing between two kept ones: an edge that was off skipped them.

        Raises:
            InputError: a release does not verify, or does not follow from the one before it.
        """
        releases = self.all()
        for before, after in pairwise(releases):
            _check_succession(before, after)
        for release in releases:
            self._check(release, self._pinned)

    def expired(self, release: Release) -> bool:
        """Whether a release has expired by the store's clock."""
        return release.expired(self._clock())

    def _verified(self, release: Release) -> tuple[Release, bool]:
        """Return a release that may come into force, and whether it is not there yet."""
        current = self.current()
        self._check(release, current.key if current is not None else self._pinned)
        now = self._clock()
        if release.expired(now):
            raise InputError(f"it expired at {release.expires}")
        if release.issued_after(now + _SKEW):
            raise InputError(f"it was issued at {release.issued}, which is yet to come")
        if current is not None:
            if release.digest == current.digest:
                return current, False
            _check_succession(current, release)
        return release, True

    def _check(self, release: Release, trusted: str) -> None:
        if release.header.fingerprint != self._fingerprint:
            raise InputError("it is for another base model")
        if release.header.task != self._task:
            raise InputError(f"it is for task {release.header.task!r}")
        release.check_signed_from(trusted)


def _check_succession(current: Release, release: Release) -> None:
    if release.version < current.version:
        raise InputError(f"version {release.version} is older than {current.version}, which is in force")
    if release.version == current.version:
        raise InputError(f"another release of version {current.version} is in force")
    if release.chain[: current.version] != (*current.chain, current.digest):
        raise InputError(f"its chain does not hold version {current.version}, which is in force")
    before = tuple(rotation for rotation in release.rotations if rotation.version <= current.version)
    if before != current.rotations:
        raise InputError(f"its rotations of keys up to version {current.version} are not those in force")
