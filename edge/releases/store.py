"""Keeps the releases an edge has verified; a refused one leaves the last good one in force.

00000003.safetensors …   the newest releases, one file each
00000003.revoked         beside a kept release that some pointer revoked: no later key brings it back
in-force.json            the newest pointer: what the cloud said of the release in force and of revoked ones

Nothing else is kept: what is trusted follows from the key pinned at enrolment and from the files, which are
verified again whenever they are read.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from threading import Lock

from fedperfit.edge.releases.succession import check_pointed, check_pointer, check_release
from fedperfit.protocol.system.errors import InputError, line_of
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.trust.pointer import NONE, Pointer, parse_pointer
from fedperfit.protocol.trust.published import MAX_POINTER_BYTES, POINTER_FILE, release_file
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.release_file import parse_release, read_release

_SKEW = timedelta(hours=1)
"""Greatest difference between the clocks of cloud and edge."""
_KEPT = 8
"""Most releases that are kept, the newest."""
_REVOKED = ".revoked"
"""Suffix of the empty file beside a revoked release."""


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
            task: id of the task.
            clock: tells the time in UTC.
        """
        self.folder = folder
        self._pinned, self._fingerprint, self._task, self._clock = pinned, fingerprint, task, clock
        self._accepting = Lock()
        self._refusals = {"pointer": "", "release": ""}
        """Why the latest one that was fetched was refused; empty where it was not."""

    def accept(self, data: bytes, check: Callable[[Release], None] = lambda release: None) -> Release:
        """Verify a release and keep it; one that is in force already changes nothing.

        Args:
            data: bytes of the release.
            check: called with the verified release before it is kept; what it raises keeps it from being so.

        Raises:
            InputError: the release is malformed, of another task or base model, not signed by the cloud,
                expired, revoked, older than the one in force or in conflict with it; nothing is changed.
        """
        with self._accepting:
            try:
                release, news = self._verified(parse_release(data))
            except InputError as error:
                raise InputError(f"release refused: {error}") from None
            check(release)
            if news:
                write_atomic(self.folder / release_file(release.version), data)
                for old in sorted(self.folder.glob("*.safetensors"))[:-_KEPT]:
                    old.unlink()
                    old.with_suffix(_REVOKED).unlink(missing_ok=True)
            return release

    def point(self, data: bytes) -> Pointer | None:
        """Verify a pointer and keep it: from now on it binds which releases may follow.

        Args:
            data: bytes of the pointer.

        Returns:
            The pointer, if it names a release that is not kept yet; else None.

        Raises:
            InputError: the pointer is malformed, not signed by the cloud, expired, older than the one kept,
                or in conflict with it or with the releases kept; nothing is changed.
        """
        with self._accepting, self._remembering("pointer"):
            latest, known = self.latest(), self.pointer()
            try:
                pointer = parse_pointer(data)
                pointer.check_signed_from(self._pinned)
                self._check_times(pointer)
                check_pointer(known, latest, pointer)
            except InputError as error:
                raise InputError(f"pointer refused: {error}") from None
            if known is None or pointer.digest != known.digest:
                self._refusals["release"] = ""
            for word in (known, pointer):  # before the last word of an old key is gone
                self._mark(word.revoked if word is not None else ())
            if pointer != known:
                write_atomic(self.folder / POINTER_FILE, data)
            return pointer if pointer.version > (latest.version if latest is not None else NONE) else None

    def fetched(self, data: bytes, check: Callable[[Release], None]) -> Release:
        """Accept the release that the pointer names, and no other.

        Args:
            data: bytes of the release.
            check: as for `accept`.

        Raises:
            InputError: it is another one, or `accept` refuses it.
        """
        with self._remembering("release"):
            pointer = self.pointer()
            if pointer is None or len(data) > pointer.size:
                raise InputError("release refused: larger than the pointer says")

            def named(release: Release) -> None:
                if release.digest != pointer.digest:
                    raise InputError("release refused: it is not the one that the pointer names")
                check(release)

            return self.accept(data, named)

    def current(self) -> Release | None:
        """The release in force, expired or not; None before the first, and after the latest was revoked."""
        latest, pointer = self.latest(), self.pointer()
        if latest is None or self._marked(latest.version):
            return None
        return None if pointer is not None and latest.version in pointer.revoked else latest

    def pointer(self) -> Pointer | None:
        """The newest pointer that verifies, expired or not; None before the first."""
        try:
            with (self.folder / POINTER_FILE).open("rb") as file:
                pointer = parse_pointer(file.read(MAX_POINTER_BYTES + 1))
            pointer.check_signed_from(self._pinned)
            return pointer
        except (InputError, FileNotFoundError):
            return None

    def notice(self) -> str:
        """What the owner should know of the release in force; empty where all is well."""
        latest, pointer = self.latest(), self.pointer()
        version = latest.version if latest is not None else NONE
        refusal = self._refusals["pointer"] or self._refusals["release"]
        if refusal or pointer is None:
            return refusal
        if pointer.expired(self._clock()):
            return (
                f"what the cloud said of the release in force at {pointer.issued} has expired: no news since"
            )
        if version in pointer.revoked and pointer.version == NONE:
            return f"the cloud revoked release {version}, and none is in force"
        if pointer.version > version:
            return f"release {pointer.version} is in force, and is yet to be fetched"
        return ""

    def latest(self) -> Release | None:
        """The newest release that verifies, expired, revoked or not; None before the first."""
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
            check_release(before, after)
        for release in releases:
            self._check(release, self._pinned)

    def expired(self, release: Release) -> bool:
        """Whether a release has expired by the store's clock."""
        return release.expired(self._clock())

    @contextmanager
    def _remembering(self, what: str) -> Iterator[None]:
        """Remember why what is taken in the block was refused, if it was."""
        try:
            yield
            self._refusals[what] = ""
        except InputError as error:
            self._refusals[what] = line_of(str(error))
            raise

    def _mark(self, revoked: Sequence[int]) -> None:
        """Remember for good which of the releases kept were revoked."""
        for version in revoked:
            path = self.folder / release_file(version)
            if path.exists() and not self._marked(version):
                write_atomic(path.with_suffix(_REVOKED), b"")

    def _marked(self, version: int) -> bool:
        return (self.folder / release_file(version)).with_suffix(_REVOKED).exists()

    def _verified(self, release: Release) -> tuple[Release, bool]:
        """Return a release that may come into force, and whether it is not there yet."""
        latest, pointer = self.latest(), self.pointer()
        self._check(release, latest.key if latest is not None else self._pinned)
        self._check_times(release)
        if self._marked(release.version):
            raise InputError(f"version {release.version} was revoked")
        if pointer is not None and (latest is None or release.version >= latest.version):
            check_pointed(pointer, release)
        if latest is not None:
            if release.digest == latest.digest:
                return latest, False
            check_release(latest, release)
        return release, True

    def _check_times(self, signed: Release | Pointer) -> None:
        now = self._clock()
        if signed.expired(now):
            raise InputError(f"it expired at {signed.expires}")
        if signed.issued_after(now + _SKEW):
            raise InputError(f"it was issued at {signed.issued}, which is yet to come")

    def _check(self, release: Release, trusted: str) -> None:
        if release.header.fingerprint != self._fingerprint:
            raise InputError("it is for another base model")
        if release.header.task != self._task:
            raise InputError(f"it is for task {release.header.task!r}, not for {self._task!r}")
        release.check_signed_from(trusted)
