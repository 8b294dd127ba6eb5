"""LaMP users fetched one by one from an Arrow table on disk.

A folder's JSON files are converted once, in bounded memory; after that a user costs one row.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import private_folder, user_cache, write_json, writing_cache
from fedperfit.protocol.tasks import Task
from fedperfit.simulation.data.lamp_files import (
    GROUPS,
    GroupFiles,
    LampRow,
    Layout,
    detect,
    file_names,
    folder_of,
    layout_of,
    rows,
    stored,
)
from fedperfit.simulation.data.mapping import SUFFIX, Mapping

FORMAT = 5
"""Version of the converted tables; after a new number old tables are not used."""
BATCH_ROWS = 8
"""Rows held in memory at a time while converting."""
ABOUT = "about.json"
"""File beside the tables with their version and layout."""


@dataclass(frozen=True)
class User:
    """A user of a data set."""

    name: str
    history: list[dict[str, Any]]
    """Items as published, oldest first where they are dated; the task's answer is always a text."""
    questions: list[dict[str, Any]]
    """Questions `{"id", "input", "gold"}`, all texts; the gold exactly as published."""


class _About(TypedDict):
    """What is said of converted tables."""

    layout: Layout
    remarks: NotRequired[list[str]]


class LampData:
    """Users of one task in two groups: `others`, for the collective shift, and `targets`.

    Attributes:
        task: The task of the data.
        layout: Layout and split of the files the data come from.
        remarks: Lines that were left out or taken as something else.
    """

    def __init__(self, folder: Path, task: Task) -> None:
        """Map converted tables, as `open_lamp` makes them.

        Args:
            folder: Folder of the converted tables.
            task: Task that is worked on.
        """
        from datasets import Dataset, concatenate_datasets

        self.task = task
        about = read_form(folder / ABOUT, _About)
        self.layout = about["layout"]
        self.remarks = about.get("remarks", [])
        self._tables: dict[str, Any] = {}
        self._rows: dict[str, dict[str, list[int]]] = {}
        for group in GROUPS:
            shards = sorted((folder / group).rglob("*.arrow"))
            table = concatenate_datasets([Dataset.from_file(str(shard)) for shard in shards])
            self._tables[group] = table
            rows_by_name: dict[str, list[int]] = {}
            for row, name in enumerate(table.data.column("name").to_pylist()):
                rows_by_name.setdefault(name, []).append(row)
            self._rows[group] = rows_by_name

    def users(self, group: str) -> Sequence[str]:
        """Return the names in `group` in the order of the file.

        Raises:
            InputError: There is no such group.
        """
        return list(self._group(group))

    def user(self, group: str, name: str) -> User:
        """Read one user, and nobody else's row.

        In the time split a user's questions may each have a profile: the history is what all of them hold, so
        that no later profile gives away the answer to an earlier question.

        Args:
            group: `others` or `targets`.
            name: The user's name, one of `users(group)`.

        Raises:
            InputError: There is no such group or user.
        """
        rows_by_name = self._group(group)
        if name not in rows_by_name:
            raise InputError(f"no user {name!r} among the {len(rows_by_name)} {group}")
        stored = [self._tables[group][row] for row in rows_by_name[name]]
        histories = [json.loads(row["history"]) for row in stored]
        questions = [question for row in stored for question in json.loads(row["questions"])]
        return User(name, _common(histories), questions)

    def _group(self, group: str) -> dict[str, list[int]]:
        if group not in self._rows:
            raise InputError(f"unknown group {group!r}: expected {' or '.join(GROUPS)}")
        return self._rows[group]


def open_lamp(folder: Path, task: Task, cache: Path | None = None) -> LampData:
    """Open the LaMP files in `folder`; they are converted first unless that was done before.

    A change of any file makes a new conversion, which replaces the old one. A conversion that fails leaves no
    table behind. No other account may read the tables.

    Args:
        folder: Folder with a task's files, official or in OPPU's layout, or the mapping of data of one's own.
        task: Task that is worked on.
        cache: Folder of the converted tables; by default one in the user's cache directory.

    Raises:
        InputError: Something is wrong with the files; the message is one line.
    """
    from filelock import FileLock

    cache = cache or user_cache("lamp")
    folder = folder_of(folder, task)
    own = Mapping.read(folder, task) if folder.suffix == SUFFIX else Mapping.shipped(folder, task)
    files = detect(folder) if own is None else ()
    names = dict.fromkeys(file_names(files))
    sources = [stored(folder, name) for name in names] if own is None else own.sources
    sources += [folder] * (folder.suffix == SUFFIX)
    place = f"{task.id}-{_digest(str(folder.resolve()))}"
    try:
        state = _state(sources)
        final = cache / f"{place}-{state}"
        if not final.is_dir():
            with writing_cache(cache):
                cache.mkdir(parents=True, exist_ok=True)
                with FileLock(cache / f"{place}.lock"):
                    if not final.is_dir():
                        part = cache / f"{place}.part"
                        with _building(part, final, sources, state):
                            if own is None:
                                _convert(folder, files, task, part)
                            else:
                                _convert_own(own, part)
                        for old in cache.glob(f"{place}-*"):
                            if old != final:
                                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror or error}") from None
    return LampData(final, task)


@contextmanager
def _building(part: Path, final: Path, sources: Sequence[Path], state: str) -> Iterator[None]:
    """Inside the block tables are built in `part`, which then gets its name, whole or not at all."""
    shutil.rmtree(part, ignore_errors=True)  # left by a killed run
    private_folder(part)  # as the files that it is made of may be
    try:
        yield
        if _state(sources) != state:
            raise InputError(f"{sources[0].parent}: files changed while they were read; try again")
        part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _convert(folder: Path, files: tuple[GroupFiles, ...], task: Task, part: Path) -> None:
    layout = layout_of(folder, files)
    remarks: list[str] = []
    for group in files:
        _write_table(part / group.group, group.group, partial(_told, folder, group, layout, task, remarks))
    told = list(dict.fromkeys(remarks))  # both groups may be of one file
    write_json(part / ABOUT, {"format": FORMAT, "layout": layout, "remarks": told})


def _told(
    folder: Path, files: GroupFiles, layout: Layout, task: Task, remarks: list[str]
) -> Iterator[LampRow]:
    return rows(folder, files, layout, task, remarks.append)


def _convert_own(own: Mapping, part: Path) -> None:
    remarks: list[str] = []
    for group, entries in own.rows(remarks.append).items():
        _write_table(part / group, group, partial(iter, entries))
    write_json(part / ABOUT, {"format": FORMAT, "layout": own.layout, "remarks": remarks})


def _write_table(target: Path, group: str, entries: Callable[[], Iterator[LampRow]]) -> None:
    from datasets import Dataset, Features, Value
    from datasets.exceptions import DatasetGenerationError

    def generate() -> Iterator[dict[str, str]]:
        for row in entries():
            yield {"name": row["name"], "history": row["history"], "questions": row["questions"]}

    text = Value("large_string")
    with _no_progress_bars():
        try:
            Dataset.from_generator(
                generate,
                features=Features({"name": text, "history": text, "questions": text}),
                cache_dir=str(target),
                keep_in_memory=False,
                fingerprint=group,
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


def _state(sources: Sequence[Path]) -> str:
    """Digest the format and every file's name, size and time of change."""
    parts = [f"format {FORMAT}"]
    for path in sources:
        stat = path.stat()
        parts.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}")
    return _digest("\n".join(parts))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _common(histories: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the items of the first history that all others hold too."""
    others = [{json.dumps(item, sort_keys=True) for item in history} for history in histories[1:]]
    return [
        item for item in histories[0] if all(json.dumps(item, sort_keys=True) in other for other in others)
    ]
