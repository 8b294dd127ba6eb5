"""The cloud's releases, the pointer to the one in force, and the key that signs them.

.releases.lock                    held by the writer of any of the following
releases/00000001.safetensors …   the chain, which edges fetch
releases/in-force.json            the pointer, which they fetch first
signing.pem                       the key in use; signing.next.pem while a rotation is under way
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock

from fedperfit.protocol.people.people import People
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError, MissingFileError
from fedperfit.protocol.system.files import sweep, write_atomic
from fedperfit.protocol.trust.pointer import POINTER_LIFETIME, Pointer, parse_pointer
from fedperfit.protocol.trust.published import POINTER_FILE, RELEASES, release_file, release_files
from fedperfit.protocol.trust.release import LIFETIME, Release, check_chain
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.protocol.trust.signing import SigningKey, read_signing_key
from fedperfit.protocol.trust.validity import parse_time

KEY = "signing.pem"
"""File of the signing key in the cloud's folder."""
_NEXT = "signing.next.pem"
_LOCK = ".releases.lock"
_RENEWED = POINTER_LIFETIME / 3
"""Age at which a pointer is renewed."""


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
        return [read_release(path) for path in release_files(self.folder)]

    def latest(self) -> Release | None:
        """Return the last release; None before the first.

        Raises:
            InputError: Naming its file, if it is broken.
        """
        paths = release_files(self.folder)
        return read_release(paths[-1]) if paths else None

    def in_force(self) -> Release | None:
        """Return the release that edges are told to use; None before the first, or if all were revoked.

        Raises:
            InputError: Naming a file that is broken.
        """
        latest = self.latest()
        return latest if latest is not None and latest.version not in self.revoked() else None

    def revoked(self) -> tuple[int, ...]:
        """Return the versions that were revoked, ascending, and all others of the same content.

        Raises:
            InputError: If the pointer's file or a release is broken.
        """
        pointer = self._pointer()
        if pointer is None or not pointer.revoked:
            return ()
        releases = self.all()
        bad = {_content(release) for release in releases if release.version in pointer.revoked}
        same = {release.version for release in releases if _content(release) in bad}
        return tuple(sorted({*pointer.revoked, *same}))

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
        delta: float | None = None,
        lifetime: timedelta = LIFETIME,
        directions: Directions | None = None,
        people: People | None = None,
    ) -> Release:
        """Sign and store the next release; if the latest says the same and has not expired, return that.

        Args:
            shift: The collective shift.
            header: Its description.
            epsilon: Privacy budget spent; None without differential privacy.
            delta: Delta that it holds at.
            lifetime: Validity from now on.
            directions: The group's directions, if any.
            people: Basis of personal shifts and prior over people, if any.

        Raises:
            InputError: If the chain is of another task or base model, or this content was revoked.
        """
        with self._writing():
            key, latest = self.key(), self.latest()
            edit = directions.to_bytes() if directions is not None else b""
            crowd = people.to_bytes() if people is not None else b""
            content = (pack(shift, header), edit, crowd)
            self._check_not_revoked(content)
            make: Callable[..., Release] = Release.first
            if latest is not None:
                before = (*_content(latest), latest.epsilon, latest.delta)
                same = before == (*content, epsilon, delta)
                if same and not latest.expired(datetime.now(UTC)):
                    return latest
                make = latest.next
            release = make(
                shift,
                header,
                key,
                epsilon=epsilon,
                delta=delta,
                lifetime=lifetime,
                directions=directions,
                people=people,
            )
            self._write(release)
            self._point(key)
            return release

    def name_members(
        self,
        members: Directory,
        first: Callable[[], tuple[Shift, ShiftHeader]],
        *,
        lifetime: timedelta = LIFETIME,
    ) -> Release:
        """Release what is in force again, with the clients that committees of secure sums are drawn from.

        Args:
            members: Those clients, with their keys; where the release in force names the same, it stays.
            first: Makes the shift of the first release and its description, where there is none yet.
            lifetime: Validity of the release.

        Raises:
            InputError: If every release was revoked.
        """
        with self._writing():
            key, latest = self.key(), self.latest()
            if latest is None:
                release = Release.first(*first(), key, lifetime=lifetime, members=members)
            elif self.in_force() is None:
                raise InputError(f"{self.folder}: no release is in force that could name anybody")
            elif latest.members == members.to_bytes() and not latest.expired(datetime.now(UTC)):
                return latest
            else:
                release = latest.followed_by(latest, key, lifetime=lifetime, members=members)
            self._write(release)
            self._point(key)
            return release

    def rotate(self, *, lifetime: timedelta = LIFETIME) -> Release:
        """Make a new key and release the latest shift again, signed by both keys.

        While no release is in force, the one that carries the rotation is revoked from the beginning: edges
        follow the key by the pointer, and use no shift of it.

        Args:
            lifetime: Validity of the release.

        Raises:
            InputError: Before the first release, when nobody could have pinned the key.
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
            self._point(new)
            return release

    def revoke(self, version: int, *, lifetime: timedelta = LIFETIME) -> Release | None:
        """Revoke a release for ever, and every other one of the same content.

        If it was in force, the latest content that was not revoked is released again as a new version: edges
        only ever go forward.

        Args:
            version: Version of the release.
            lifetime: Validity of the new release.

        Returns:
            The release in force afterwards; None if every content was revoked.

        Raises:
            InputError: If there is no such release, or it was revoked before.
        """
        with self._writing():
            key, releases, before = self.key(), self.all(), self.revoked()
            if version not in {release.version for release in releases}:
                raise InputError(f"{self.folder}: no release of version {version}")
            if version in before:
                raise InputError(f"{self.folder}: version {version} was revoked already")
            bad = _content(releases[version - 1])
            revoked = tuple(r.version for r in releases if r.version in before or _content(r) == bad)
            good = [release for release in releases if release.version not in revoked]
            if good and releases[-1].version in revoked:
                self._write(releases[-1].followed_by(good[-1], key, lifetime=lifetime))
            self._point(key, revoked)
            return self.in_force()

    def renew_pointer(self) -> Pointer:
        """Sign a new pointer to the release in force, if the last one is old or says something else.

        Returns:
            The pointer that is on file now.

        Raises:
            InputError: If a release, the pointer or the key is broken.
        """
        with self._writing():
            key, pointer, release = self.key(), self._pointer(), self.in_force()
            if pointer is not None and pointer.key == key.public:
                digest = release.digest if release is not None else ""
                if pointer.digest == digest and pointer.issued_after(datetime.now(UTC) - _RENEWED):
                    return pointer
            return self._point(key)

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

    def _point(self, key: SigningKey, revoked: tuple[int, ...] | None = None) -> Pointer:
        """Write a new pointer; `revoked` by default as it was.

        No two are issued within the same second: who asks for one that is newer than theirs gets it.
        """
        revoked = self.revoked() if revoked is None else revoked
        latest = self.latest()
        release = latest if latest is not None and latest.version not in revoked else None
        last, now = self._pointer(), datetime.now(UTC)
        issued = now if last is None else max(now, parse_time(last.issued) + timedelta(seconds=1))
        pointer = Pointer.signed(
            release,
            key,
            size=self._path(release).stat().st_size if release is not None else 0,
            revoked=revoked,
            rotations=latest.rotations if latest is not None else (),
            issued=issued,
        )
        modified = parse_time(pointer.issued).timestamp()
        write_atomic(self._pointer_path, pointer.to_bytes(), modified=modified)
        return pointer

    def _pointer(self) -> Pointer | None:
        try:
            return parse_pointer(self._pointer_path.read_bytes())
        except FileNotFoundError:
            return None
        except InputError as error:
            raise InputError(f"{self._pointer_path}: {error}") from None

    def _check_not_revoked(self, content: tuple[bytes, bytes, bytes]) -> None:
        revoked = self.revoked()
        for release in self.all() if revoked else ():
            if release.version in revoked and _content(release) == content:
                raise InputError(f"this content was released as version {release.version}, and revoked")

    @property
    def _pointer_path(self) -> Path:
        return self.folder / RELEASES / POINTER_FILE

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if not self.folder.is_dir():
            raise MissingFileError(f"{self.folder}: no such folder")
        with self._lock:
            sweep(self.folder / RELEASES)
            sweep(self.folder, "signing.*")
            yield

    def _write(self, release: Release) -> None:
        write_atomic(self._path(release), release.to_bytes())

    def _path(self, release: Release) -> Path:
        return self.folder / RELEASES / release_file(release.version)


def _content(release: Release) -> tuple[bytes, bytes, bytes]:
    """Return what edges use of a release, encoded: shift, directions, basis of personal shifts and prior."""
    return release.packed, release.edit, release.crowd
