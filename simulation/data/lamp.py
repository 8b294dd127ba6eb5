"""Users of real LaMP data, fetched one by one from an Arrow table on disk.

A folder's JSON files are converted once, in bounded memory; after that a user costs one row.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.tasks import Task
from fedperfit.simulation.data.lamp_files import (
    GROUPS,
    GroupFiles,
    Layout,
    detect,
    file_names,
    layout_of,
    rows,
)

FORMAT = 1
"""Of the converted tables; a new number makes old ones unused."""
BATCH_ROWS = 8
"""Users held in memory at a time while converting."""
ABOUT = "about.json"


@dataclass(frozen=True)
class User:
    """One person of a data set."""

    name: str
    history: list[dict[str, Any]]
    """Items as published, oldest first where dated; the task's answer is always a text."""
    questions: list[dict[str, Any]]
    """{"id", "input", "gold"}, all texts; the gold exactly as published."""


class LampData:
    """One task's users in two groups: `others` (for the collective shift) and `targets`."""

    def __init__(self, folder: Path, task: Task) -> None:
        """Map the converted tables in `folder`; use `open_lamp`."""
        from datasets import Dataset, concatenate_datasets

        self.task = task
        self.layout = Layout(read_json(folder / ABOUT)["layout"])
        self._tables: dict[str, Any] = {}
        self._rows: dict[str, dict[str, list[int]]] = {}
        for group in GROUPS:
            shards = sorted((folder / group).rglob("*.arrow"))
            table = concatenate_datasets([Dataset.from_file(str(shard)) for shard in shards])
            self._tables[group] = table
            found: dict[str, list[int]] = {}
            for row, name in enumerate(table.data.column("name").to_pylist()):
                found.setdefault(name, []).append(row)
            self._rows[group] = found

    def users(self, group: str) -> Sequence[str]:
        """Names in the order of the file; raises InputError for an unknown group."""
        return list(self._group(group))

    def user(self, group: str, name: str) -> User:
        """One user, reading nobody else's row; raises InputError for an unknown group or name.

        In the time split a user's questions may each have a profile: the history is what all of them
        hold, so that no later profile gives away the answer to an earlier question.
        """
        found = self._group(group)
        if name not in found:
            raise InputError(f"no user {name!r} among the {len(found)} {group}")
        stored = [self._tables[group][row] for row in found[name]]
        histories = [json.loads(row["history"]) for row in stored]
        questions = [question for row in stored for question in json.loads(row["questions"])]
        return User(name, _common(histories), questions)

    def _group(self, group: str) -> dict[str, list[int]]:
        if group not in self._rows:
            raise InputError(f"unknown group {group!r}: expected {' or '.join(GROUPS)}")
        return self._rows[group]


def open_lamp(folder: Path, task: Task, cache: Path | None = None) -> LampData:
    """Open the LaMP files in `folder`, converting them first unless that was done before.

    `cache` keeps the converted tables; by default a folder of the user's cache directory. A change of
    any file makes a new conversion, which replaces the old one.
    Raises InputError in one line for anything wrong with the files, and then leaves no table behind.
    """
    from filelock import FileLock

    if cache is None:
        from platformdirs import user_cache_path

        cache = user_cache_path("fedperfit") / "lamp"
    files = detect(folder)
    place = f"{task.name}-{_digest(str(folder.resolve()))}"
    try:
        state = _state(folder, files)
        final = cache / f"{place}-{state}"
        if not final.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f"{place}.lock"):
                if not final.is_dir():
                    _convert(folder, files, task, cache / f"{place}.part", final, state)
                    for old in cache.glob(f"{place}-*"):
                        if old != final:
                            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{error.filename or cache}: {error.strerror or error}") from None
    return LampData(final, task)


def _convert(
    folder: Path, files: tuple[GroupFiles, ...], task: Task, part: Path, final: Path, state: str
) -> None:
    """Build the tables in `part` and rename it to `final`, whole or not at all."""
    shutil.rmtree(part, ignore_errors=True)  # left by a killed run
    try:
        layout = layout_of(folder, files)
        for group in files:
            _write_table(part / group.group, folder, group, layout, task)
        write_json(part / ABOUT, {"format": FORMAT, "layout": layout})
        if _state(folder, files) != state:
            raise InputError(f"{folder}: files changed while they were read; try again")
        part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _write_table(target: Path, folder: Path, files: GroupFiles, layout: Layout, task: Task) -> None:
    from datasets import Dataset, Features, Value
    from datasets.exceptions import DatasetGenerationError

    def generate() -> Iterator[dict[str, str]]:
        for row in rows(folder, files, layout, task):
            yield {"name": row["name"], "history": row["history"], "questions": row["questions"]}

    text = Value("large_string")
    with _no_progress_bars():
        try:
            Dataset.from_generator(
                generate,
                features=Features({"name": text, "history": text, "questions": text}),
                cache_dir=str(target),
                keep_in_memory=False,
                fingerprint=files.group,
                writer_batch_size=BATCH_ROWS,
            )
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, InputError | OSError):
                raise error.__cause__ from None
            raise


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _state(folder: Path, files: tuple[GroupFiles, ...]) -> str:
    """A digest of the format and of every file's name, size and time of change."""
    parts = [f"format {FORMAT}"]
    for name in file_names(files):
        stat = (folder / name).stat()
        parts.append(f"{name} {stat.st_size} {stat.st_mtime_ns}")
    return _digest("\n".join(parts))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _common(histories: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The items of the first history that all others hold too."""
    others = [{json.dumps(item, sort_keys=True) for item in history} for history in histories[1:]]
    return [
        item for item in histories[0] if all(json.dumps(item, sort_keys=True) in other for other in others)
    ]
