"""Folders of studies and runs, as commands look at them before anything that takes seconds is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedperfit.cloud.job.events import EVENTS
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.protocol.system.errors import InputError, MissingFileError
from fedperfit.protocol.system.files import from_home, read_json_lines
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.simulation.world.build import WORLD

LOCK = ".lock"
"""File in the folder of a run or study that is locked while a process works on it."""
TUNED_ON = "tuned-on.release"
"""File of a tuning: the release that personal shifts are fitted on; empty for the base model alone."""


def check_new(folder: Path, *, resumable: bool = False, beside: str = "") -> None:
    """Check that a new study can be put into a folder.

    Args:
        folder: Folder that is to hold it; it need not be there.
        resumable: Whether such a study can be gone on with.
        beside: Name of what the folder may hold already.

    Raises:
        InputError: The folder is not empty.
    """
    if folder.is_dir() and any(path.name != beside for path in folder.iterdir()):
        resume = "--resume continues what was begun in it; or " if resumable else ""
        raise InputError(f"{folder} is not empty: {resume}name another folder")


def check_begun(folder: Path | None, kind: str) -> Path:
    """Check that a folder holds a study that can be gone on with, and return it.

    Args:
        folder: The folder, if `--run-dir` names one.
        kind: What it is to hold, e.g. `comparison`.

    Raises:
        InputError: No folder is named, or it holds no such study.
    """
    if folder is None:
        raise InputError(f"--resume needs --run-dir, the folder of the {kind} to go on with")
    if not (folder / SETTINGS).is_file():
        raise InputError(f"{folder}: holds no {kind} that was begun")
    return folder


@contextmanager
def taken_back_if_refused(folder: Path, *, new: bool = True) -> Iterator[None]:
    """Take back a study that is refused inside the block before any work was done: it can be begun again.

    Args:
        folder: Folder of the study, whose settings are on file.
        new: Whether it was begun by this command; one that is gone on with stays.
    """
    try:
        yield
    except InputError:
        if new and not _worked(folder):
            for name in (SETTINGS, EVENTS, TUNED_ON, LOCK):
                (folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # it holds the world, or is where the command runs
                folder.rmdir()
        raise


def _worked(folder: Path) -> bool:
    """Whether a study's events tell of any work that was done."""
    events = read_json_lines(folder / EVENTS) if (folder / EVENTS).exists() else []
    return any(event["event"] in ("work", "trial") for event in events)


def check_free(folder: Path) -> None:
    """Check that a new run of `simulate` can be put into a folder.

    Args:
        folder: Folder that is to hold it; it need not be there.

    Raises:
        InputError: The folder holds a run, or something else.
    """
    if (folder / SETTINGS).exists():
        raise InputError(f"{folder} holds a run already: add --resume, or name another --run-dir")
    if folder.is_dir() and any(path.name != LOCK for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no run: name another --run-dir")


def check_named(data: str, base_model: str) -> None:
    """Check that the data and the base model that settings name by a path are there.

    Args:
        data: Folder or mapping, or `world`.
        base_model: Folder, or a name of another kind, which is left for later.

    Raises:
        MissingFileError: One of them is not.
    """
    if data != WORLD and not from_home(data).exists():
        raise MissingFileError(f"{data}: no such file or folder")
    if base_model.startswith((".", "~", "/")) and not from_home(base_model).exists():
        raise MissingFileError(f"base model {base_model!r}: no such folder")


def check_finished(run: Path) -> None:
    """Check that a folder holds a run of `simulate` that ended; raises InputError where it does not."""
    if not (run / FILE_NAME).exists():
        raise InputError(f"{run}: no finished run of `simulate`")
