"""Folders as they travel between the machine of a run and those of its workers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from fedperfit.protocol.model.base_model import EMBEDDED
from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.system.files import from_home, write_atomic
from fedperfit.simulation.world.build import WORLD

AnySettings = TypeVar("AnySettings", bound=Settings)
_PLACES = ("base_model", "data", "encoder", "public_items")
"""Settings that may name a file or a folder."""

Files = Mapping[str, bytes]
"""Content of a folder's files, by their paths in it."""


def paths_in(folder: Path) -> list[Path]:
    """List the files of a folder and those below, sorted.

    Locks and unfinished files, whose names begin with a dot or end in `.lock`, are left out.
    """
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if not path.name.startswith(".") and path.suffix != ".lock")


def read_folder(folder: Path) -> Files:
    """Read the files of a folder and those below."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths_in(folder)}


def fill_folder(folder: Path, files: Files) -> None:
    """Write files, readable by their owner only, into a folder that is gone before long.

    Args:
        folder: Folder that is made where it is not there.
        files: What is written into it.
    """
    for path, data in _placed(folder, files):
        path.touch(mode=0o600)
        path.write_bytes(data)


def write_folder(folder: Path, files: Files) -> None:
    """Write or replace files of a folder, each whole or not at all.

    Args:
        folder: Folder that is made where it is not there.
        files: What is written into it.
    """
    for path, data in _placed(folder, files):
        write_atomic(path, data)


def _placed(folder: Path, files: Files) -> Iterator[tuple[Path, bytes]]:
    """Yield the path and the content of each file, with the folders above it made."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield path, data


def changed(before: Files, folder: Path) -> Files:
    """Return the files of a folder that are new or have another content than before."""
    return {name: data for name, data in read_folder(folder).items() if before.get(name) != data}


def everywhere(settings: AnySettings) -> AnySettings:
    """Return settings that mean the same in any folder: what they name by a path, they name by the whole.

    Args:
        settings: Settings of a study.
    """
    named = {name: getattr(settings, name) for name in _PLACES if getattr(settings, name, "")}
    return settings.replace(**{name: whole_path(value) for name, value in named.items()})


def whole_path(name: str) -> str:
    """Name a local file or folder by its whole path, any other thing as it is named.

    Args:
        name: Path, the name of a model on a hub, or that of something that ships.
    """
    path = from_home(name)
    return str(path.resolve()) if name not in (EMBEDDED, WORLD) and path.exists() else name
