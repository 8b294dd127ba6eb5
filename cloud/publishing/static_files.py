"""A folder of static files from which edges fetch releases: signed, so whoever hands them out is not trusted.

00000003-DIGEST.safetensors …   the chain of releases; what such a name means never changes
in-force.json                   the pointer, replaced whole; said to be modified when it was issued

Neither the signing key nor any other secret is read to write it. A release is there before the pointer that
names it, and stays for those who have an older pointer from a cache, unless it was revoked.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import sweep, write_atomic
from fedperfit.protocol.trust.pointer import NONE, Pointer, parse_pointer
from fedperfit.protocol.trust.published import POINTER_FILE, mirrored_file, release_file, releases_folder
from fedperfit.protocol.trust.release_file import parse_release, read_release
from fedperfit.protocol.trust.validity import parse_time

_LOCK = ".writing.lock"
_RELEASE = re.compile(r"([0-9]{8,})-[0-9a-f]{64}\.safetensors")
_READABLE, _OPEN = 0o644, 0o755
"""Permissions of the files and of their folder: whoever serves them is another account."""
_LOOK_SECONDS = 2.0


class StaticFiles:
    """The static files of a cloud; usable inside the block of `open`."""

    def __init__(self, releases: Path, out: Path) -> None:
        """Write nothing yet.

        Args:
            releases: The cloud's folder of releases.
            out: Folder of the static files.
        """
        self._releases, self._out = releases, out

    @classmethod
    @contextmanager
    def open(cls, folder: Path, out: Path) -> Iterator["StaticFiles"]:
        """Make the folder, and be the only one who writes to it inside the block.

        Args:
            folder: The cloud's folder.
            out: Folder of the static files.

        Raises:
            InputError: Another process writes to it, it is in the cloud's folder, or that has no releases.
        """
        releases = releases_folder(folder)
        if out.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{out}: is in the cloud's own folder, which no web server may read")
        out.mkdir(parents=True, exist_ok=True)
        out.chmod(_OPEN)
        try:
            with FileLock(out / _LOCK, timeout=0):
                sweep(out)
                yield cls(releases, out)
        except Timeout:
            raise InputError(f"{out}: another process writes these files") from None

    def write(self) -> Pointer:
        """Bring the files to what the cloud publishes now.

        Raises:
            InputError: Nothing was published yet, or a file of the cloud's is broken.
            OSError: A file cannot be read or written.
        """
        path = self._releases / POINTER_FILE
        if not path.exists():
            raise InputError(f"{path}: nothing is published yet; `up` writes it")
        data = path.read_bytes()
        pointer = parse_pointer(data)
        for version, digest in self._chain(pointer):
            self._copy(version, digest)
        issued = parse_time(pointer.issued).timestamp()
        target = self._out / POINTER_FILE
        if not target.exists() or target.read_bytes() != data or target.stat().st_mtime != issued:
            write_atomic(target, data, mode=_READABLE, modified=issued)
        self._remove(pointer.revoked)
        return pointer

    def keep(self, say: Callable[[str], None], stopping: Callable[[], bool] = lambda: False) -> None:
        """Write them anew whenever the cloud publishes something, until told to stop.

        Args:
            say: Shows a line to the operator, once for each change.
            stopping: Whether to stop; asked every two seconds.
        """
        said = ""
        while not stopping():
            try:
                line = status(self.write())
            except InputError as error:
                line = str(error)
            except OSError as error:  # a disk that is full for a while must not leave edges without news
                line = f"{error.filename or self._out}: {error.strerror or error}"
            if line != said:
                said = line
                say(line)
            time.sleep(_LOOK_SECONDS)

    def _chain(self, pointer: Pointer) -> Iterator[tuple[int, str]]:
        """Yield version and digest of every release up to the one in force that was not revoked."""
        if pointer.version == NONE or (self._out / mirrored_file(pointer.version, pointer.digest)).exists():
            return
        release = read_release(self._releases / release_file(pointer.version))
        for version, digest in enumerate((*release.chain, pointer.digest), 1):
            if version not in pointer.revoked:
                yield version, digest

    def _copy(self, version: int, digest: str) -> None:
        """Copy one release, if it is not there: under its name there must never be anything else."""
        target = self._out / mirrored_file(version, digest)
        if target.exists():
            return
        source = self._releases / release_file(version)
        data = source.read_bytes()
        if parse_release(data).digest != digest:
            raise InputError(f"{source}: is not the release that the chain names")
        write_atomic(target, data, mode=_READABLE)

    def _remove(self, revoked: tuple[int, ...]) -> None:
        for path in self._out.glob("*.safetensors"):
            name = _RELEASE.fullmatch(path.name)
            if name and int(name[1]) in revoked:
                path.unlink()


def status(pointer: Pointer) -> str:
    """Return what the files say, in words for the operator."""
    if pointer.expired(datetime.now(UTC)):
        return f"the word on the release in force expired at {pointer.expires}: is `up` running?"
    if pointer.version == NONE:
        return "no release is in force"
    return f"release {pointer.version} is in force"
