"""The cloud's releases and the key that signs them.

.releases.lock                    held by the writer of either of the following
releases/00000001.safetensors …   the chain
signing.pem                       the key in use; signing.next.pem while a rotation is under way
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock

from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError, MissingFileError
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.trust.release import LIFETIME, Release, check_chain, read_release
from fedperfit.protocol.trust.signing import SigningKey, read_signing_key

KEY = "signing.pem"
"""File of the signing key in the cloud's folder."""
_NEXT = "signing.next.pem"
_LOCK = ".releases.lock"


class CloudReleases:
    """The release chain in a cloud's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Folder of the cloud."""
        self._lock = FileLock(folder / _LOCK)

    def all(self) -> list[Release]:
        """Return every release, oldest first.

        Raises:
            InputError: Naming the file of a release that is broken.
        """
        return [read_release(path) for path in sorted((self.folder / "releases").glob("*.safetensors"))]

    def latest(self) -> Release | None:
        """Return the last release; None before the first.

        Raises:
            InputError: Naming its file, if it is broken.
        """
        paths = sorted((self.folder / "releases").glob("*.safetensors"))
        return read_release(paths[-1]) if paths else None

    def verify(self) -> list[Release]:
        """Return the whole chain, verified from its first key.

        Raises:
            InputError: If a release is broken or does not verify.
        """
        releases = self.all()
        if releases:
            check_chain(releases, releases[0].key)
        return releases

    def publish(
        self,
        shift: Shift,
        header: ShiftHeader,
        *,
        epsilon: float | None = None,
        lifetime: timedelta = LIFETIME,
        directions: Directions | None = None,
    ) -> Release:
        """Sign and store the next release; if the latest says the same and has not expired, return that.

        Args:
            shift: The collective shift.
            header: Its description.
            epsilon: Privacy budget spent; None without differential privacy.
            lifetime: Validity from now on.
            directions: The group's directions, if any.

        Raises:
            InputError: If the chain is of another task or base model.
        """
        with self._writing():
            key, latest = self.key(), self.latest()
            edit = directions.to_bytes() if directions is not None else b""
            if latest is None:
                make = Release.first
            else:
                same = (latest.packed, latest.epsilon, latest.edit) == (pack(shift, header), epsilon, edit)
                if same and not latest.expired(datetime.now(UTC)):
                    return latest
                make = latest.next
            release = make(shift, header, key, epsilon=epsilon, lifetime=lifetime, directions=directions)
            self._write(release)
            return release

    def rotate(self, *, lifetime: timedelta = LIFETIME) -> Release:
        """Make a new key and release the latest shift again, signed by both keys.

        Args:
            lifetime: Validity of the release.

        Raises:
            InputError: Before the first release: nobody could have pinned the key.
        """
        with self._writing():
            old, latest = self.key(), self.latest()
            if latest is None:
                raise InputError(f"{self.folder}: no release yet; a new signing key needs no rotation")
            new = SigningKey()
            new.write(self.folder / _NEXT)
            release = latest.rotated(old, new, lifetime=lifetime)
            self._write(release)
            (self.folder / _NEXT).replace(self.folder / KEY)
            return release

    def key(self) -> SigningKey:
        """Return the key in use; finish a rotation that was killed, or undo it if nothing was released."""
        with self._writing():
            upcoming = self.folder / _NEXT
            if upcoming.exists():
                latest = self.latest()
                if latest is not None and latest.key == read_signing_key(upcoming).public:
                    upcoming.replace(self.folder / KEY)
                else:
                    upcoming.unlink()
            return read_signing_key(self.folder / KEY)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if not self.folder.is_dir():
            raise MissingFileError(f"{self.folder}: no such folder")
        with self._lock:
            yield

    def _write(self, release: Release) -> None:
        path = self.folder / "releases" / f"{release.version:08d}.safetensors"
        write_atomic(path, release.to_bytes())
