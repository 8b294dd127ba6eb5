"""The official LaMP files of a task, from their server into one folder."""

from pathlib import Path
from typing import Literal

import requests

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.tasks import Task
from fedperfit.simulation.data.fetch import Progress, fetch

BASE_URL = "https://ciir.cs.umass.edu/downloads/LaMP"
LICENCE = "CC BY-NC-SA 4.0"
SOURCE = "source.json"
"""Says what a folder was downloaded as, so that two splits never mix in one folder."""

Split = Literal["user", "time"]


def urls(task: Task, split: Split, base_url: str = BASE_URL) -> dict[str, str]:
    """File name to address of the train and dev files; the test split's answers are not public."""
    folder = {"LaMP_2M": "LaMP_2/new", "LaMP_2N": "LaMP_2"}.get(task.name, task.name)
    root = f"{base_url.rstrip('/')}/{'time/' if split == 'time' else ''}{folder}"
    return {
        f"{part}_{what}.json": f"{root}/{part}/{part}_{what}.json"
        for part in ("train", "dev")
        for what in ("questions", "outputs")
    }


def download(
    task: Task,
    destination: Path,
    *,
    split: Split = "user",
    base_url: str = BASE_URL,
    progress: Progress | None = None,
    backoff_s: float = 1.0,
) -> list[Path]:
    """Fetch the official files of `task` into `destination`; those already there are kept.

    `progress` and `backoff_s` are those of `fetch`. Raises InputError as `fetch` does, and when
    `destination` holds other data or another download into it is running.
    """
    from filelock import FileLock, Timeout

    if split not in ("user", "time"):
        raise InputError(f"split={split!r}: expected user or time")
    wanted = urls(task, split, base_url)
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with FileLock(destination / ".download.lock", timeout=0), requests.Session() as session:
            _claim(destination, task, split, list(wanted))
            for name, url in wanted.items():
                fetch(session, url, destination / name, progress=progress or _silent, backoff_s=backoff_s)
    except Timeout:
        raise InputError(f"{destination}: another download into it is running") from None
    except requests.RequestException as error:
        raise InputError(f"{base_url}: {error}") from None
    except OSError as error:
        raise InputError(f"{error.filename or destination}: {error.strerror or error}") from None
    return [destination / name for name in wanted]


def _silent(name: str, done: int, total: int | None) -> None:
    """Progress for nobody."""


def _claim(destination: Path, task: Task, split: Split, names: list[str]) -> None:
    """Note in `destination` what it holds; raises InputError when it holds something else."""
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
