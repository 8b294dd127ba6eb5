"""Official LaMP files of a task, downloaded from their server into one folder."""

import re
from enum import StrEnum
from pathlib import Path

import httpx

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.tasks import Task
from fedperfit.simulation.data.fetch import Progress, fetch, open_client

BASE_URL = "https://ciir.cs.umass.edu/downloads/LaMP"
"""Official server of the LaMP benchmark (Salemi et al., 2024)."""
LICENCE = "CC BY-NC-SA 4.0"
_OFFICIAL = re.compile(r"LaMP_\d[MN]?")
"""Ids of the benchmark's own tasks."""
SOURCE = "source.json"
"""File that says what a folder was downloaded as, so that two splits never mix in one folder."""


class Split(StrEnum):
    """LaMP's splits of users into train and dev files."""

    USER = "user"
    """Dev users are new: cold start."""
    TIME = "time"
    """Train and dev have the same users; the questions of dev are later."""


def urls(task: Task, split: Split, base_url: str = BASE_URL) -> dict[str, str]:
    """Return file names and addresses of the train and dev files; the test split's answers are not public.

    Args:
        task: LaMP task.
        split: Users' split.
        base_url: Address of the folder that holds LaMP's folders.

    Raises:
        InputError: The task is none of the LaMP benchmark's.
    """
    if not _OFFICIAL.fullmatch(task.id):
        raise InputError(f"{task.id}: none of LaMP's own tasks, whose files alone can be fetched")
    folder = {"LaMP_2M": "LaMP_2/new", "LaMP_2N": "LaMP_2"}.get(task.name, task.name)
    root = f"{base_url.rstrip('/')}/{'time/' if split == Split.TIME else ''}{folder}"
    return {
        f"{part}_{what}.json": f"{root}/{part}/{part}_{what}.json"
        for part in ("train", "dev")
        for what in ("questions", "outputs")
    }


def download(
    task: Task,
    destination: Path,
    *,
    split: Split = Split.USER,
    base_url: str = BASE_URL,
    progress: Progress | None = None,
    backoff_s: float = 1.0,
) -> list[Path]:
    """Fetch the official files of `task` into `destination`; those already there are kept.

    Args:
        task: LaMP task.
        destination: Folder for the files, made if missing; one task and split per folder.
        split: Users' split.
        base_url: Address of the folder that holds LaMP's folders, e.g. of a mirror.
        progress: Called with file name, bytes so far, and bytes in all where they are known.
        backoff_s: Seconds before a failed attempt is repeated; each further failure doubles them.

    Returns:
        Paths of the files.

    Raises:
        InputError: The task is none of LaMP's own, an address fails (see `fetch`), `destination` holds other
            data, or another download into it is running.
    """
    from filelock import FileLock, Timeout

    if split not in list(Split):
        raise InputError(f"split={split!r}: expected user or time")
    wanted = urls(task, split, base_url)
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with FileLock(destination / ".download.lock", timeout=0), open_client() as client:
            _claim(destination, task, split, list(wanted))
            for name, url in wanted.items():
                fetch(client, url, destination / name, progress=progress or _silent, backoff_s=backoff_s)
    except Timeout:
        raise InputError(f"{destination}: another download into it is running") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(f"{base_url}: {error}") from None
    except OSError as error:
        raise InputError(f"{error.filename or destination}: {error.strerror or error}") from None
    return [destination / name for name in wanted]


def _silent(name: str, done: int, total: int | None) -> None:
    """Report progress to nobody."""


def _claim(destination: Path, task: Task, split: Split, names: list[str]) -> None:
    """Note in `destination` what it holds.

    Raises:
        InputError: It holds something else.
    """
    source = destination / SOURCE
    ours = {"task": task.name, "split": split, "licence": LICENCE}
    held = read_json(source) if source.exists() else None
    present = [name for name in names if (destination / name).exists()]
    if present and held != ours:
        raise InputError(
            f"{destination}: holds a {present[0]} that is not from the {split} split of {task.name} "
            "as downloaded here; choose another folder"
        )
    write_json(source, ours)
