"""What a cloud publishes, its releases and the pointer to the one in force: names, sizes, and mirrors.

A mirror is any web server or cache that hands out copies of these files. It is trusted with nothing.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fedperfit.protocol.system.errors import InputError, MissingFileError

FILE_NAME = "release.safetensors"
"""Name of a release's file in a run folder."""
RELEASES = "releases"
"""Folder of the releases in a cloud's folder."""
POINTER_FILE = "in-force.json"
"""Name of the pointer's file beside the releases."""
MAX_POINTER_BYTES = 1 << 18
"""Largest pointer accepted, in bytes."""
MIRROR = (
    r"https?://([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
    r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?"
)
"""Pattern of a mirror's web address: no account, no query, and no way up."""
_MIRROR = re.compile(MIRROR)
_PORTS = {"http": 80, "https": 443}


def release_file(version: int) -> str:
    """Return the name of a release's file.

    Args:
        version: Version of the release.
    """
    return f"{version:08d}.safetensors"


def release_files(folder: Path) -> list[Path]:
    """List the files of a cloud's releases, oldest first; none before the first.

    Args:
        folder: The cloud's folder.
    """
    return sorted((folder / RELEASES).glob("*.safetensors"))


def releases_folder(folder: Path) -> Path:
    """Return the folder of a cloud's releases.

    Args:
        folder: The cloud's folder.

    Raises:
        InputError: There is no such folder yet.
    """
    if not (folder / RELEASES).is_dir():
        raise InputError(f"{folder}: no cloud's folder, or nothing was released yet")
    return folder / RELEASES


def check_released(folder: Path) -> None:
    """Check that a cloud has released something, which reading it takes far longer to say.

    Args:
        folder: The cloud's folder.

    Raises:
        InputError: There is no such folder, or no release in it.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder")
    if not release_files(folder):
        raise InputError(f"{folder}: no release yet")


def mirrored_file(version: int, digest: str) -> str:
    """Return the name of a release's file at a mirror; what it names never changes, so caches keep it.

    Args:
        version: Version of the release.
        digest: Its digest.
    """
    return f"{version:08d}-{digest}.safetensors"


@dataclass(frozen=True)
class MirrorAddress:
    """Where a mirror hands out a cloud's files."""

    secure: bool
    """Whether it is asked over TLS."""
    host: str
    """Name or address, without brackets."""
    port: int
    """Port that it listens on."""
    folder: str
    """Path of the files' folder, from slash to slash."""

    @property
    def address(self) -> str:
        """Name or address with the port, host:port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_mirror(text: str) -> MirrorAddress:
    """Read a mirror's web address, e.g. `https://cdn.example.org/our-federation`.

    Raises:
        InputError: It is not one.
    """
    if not _MIRROR.fullmatch(text):
        raise InputError(f"mirror={text!r}: expected http(s)://host/folder")
    parts = urlsplit(text)
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError:
        raise InputError(f"mirror={text!r}: no such port") from None
    return MirrorAddress(parts.scheme == "https", parts.hostname or "", port, f"{parts.path.rstrip('/')}/")
