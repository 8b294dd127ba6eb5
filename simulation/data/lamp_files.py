"""The two published layouts of a LaMP task's files, read as one kind of row per user or question.

official  {train,dev}_questions.json and {train,dev}_outputs.json, user split or time split
OPPU      user_others.json, user_top_100_history.json and user_top_100_history_label.json
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypedDict

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Task
from fedperfit.simulation.data.json_stream import document, elements

GROUPS = ("others", "targets")


class Row(TypedDict):
    """One user, or in the time split one of a user's questions; lists as JSON text."""

    name: str
    history: str
    questions: str


class Layout(StrEnum):
    """Who published the files, and how users are split."""

    OPPU = "OPPU"
    USER_SPLIT = "official, user split"
    TIME_SPLIT = "official, time split"


@dataclass(frozen=True)
class GroupFiles:
    """The files of one group of users."""

    group: str
    entries: str
    """A list with the profiles and questions."""
    golds: str | None
    """The answers, where they are not among the entries."""


OPPU_FILES = (
    GroupFiles("others", "user_others.json", None),
    GroupFiles("targets", "user_top_100_history.json", "user_top_100_history_label.json"),
)
OFFICIAL_FILES = (
    GroupFiles("others", "train_questions.json", "train_outputs.json"),
    GroupFiles("targets", "dev_questions.json", "dev_outputs.json"),
)


def file_names(files: tuple[GroupFiles, ...]) -> list[str]:
    """All names in `files`."""
    return [name for one in files for name in (one.entries, one.golds) if name]


def detect(folder: Path) -> tuple[GroupFiles, ...]:
    """Which layout's files are in `folder`; raises InputError naming those that are missing."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    missing = {
        files: [name for name in file_names(files) if not (folder / name).is_file()]
        for files in (OPPU_FILES, OFFICIAL_FILES)
    }
    whole = [files for files, names in missing.items() if not names]
    if len(whole) == 2:
        raise InputError(f"{folder}: holds both official and OPPU files; keep one layout per folder")
    if whole:
        return whole[0]
    for files, names in missing.items():
        if len(names) < len(file_names(files)):
            raise InputError(f"{folder}: {', '.join(names)} missing")
    raise InputError(
        f"{folder}: no LaMP files; expected {', '.join(file_names(OFFICIAL_FILES))} (official) "
        f"or {', '.join(file_names(OPPU_FILES))} (OPPU)"
    )


def layout_of(folder: Path, files: tuple[GroupFiles, ...]) -> Layout:
    """The layout of `files`; the time split is known by the `user_id` of its first question."""
    if files is OPPU_FILES:
        return Layout.OPPU
    first = next(elements(folder / files[0].entries), None)
    timed = isinstance(first, dict) and "user_id" in first
    return Layout.TIME_SPLIT if timed else Layout.USER_SPLIT


def rows(folder: Path, files: GroupFiles, layout: Layout, task: Task) -> Iterator[Row]:
    """Check and convert one group's entries, one at a time.

    Raises InputError naming the file and the user for anything a study could not use: broken JSON,
    missing or mistyped keys, an empty history, a question without gold, a gold without question, an
    id used twice, another task's answers, no users at all.
    """
    path = folder / files.entries
    golds = None if files.golds is None else _golds(folder / files.golds, task)
    timed = layout is Layout.TIME_SPLIT
    seen: set[str] = set()
    asked: set[str] = set()
    """Ids of questions; they are unique among all users whose golds stand in one file."""
    for number, entry in enumerate(elements(path), start=1):
        place = f"{path}, entry {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{place}: expected an object")
        if layout is not Layout.OPPU and ("user_id" in entry) is not timed:
            raise InputError(f"{place}: user_id must be in all questions (time split) or in none")
        name = _text(entry, "id" if layout is Layout.USER_SPLIT else "user_id", place)
        if timed:
            name = f"{files.group}-{name}"
        place += f" (user {name})"
        if name in seen and not timed:
            raise InputError(f"{place}: the second with this id")
        seen.add(name)
        questions = _list(entry, "query", place) if layout is Layout.OPPU else [entry]
        history = _history(_list(entry, "profile", place), task, place)
        if golds is None:
            asked = set()
        answered = [_question(question, golds, asked, place) for question in questions]
        yield Row(name=name, history=json.dumps(history), questions=json.dumps(answered))
    if not seen:
        raise InputError(f"{path}: holds no users")
    unknown = next((name for name in golds or () if name not in asked), None)
    if unknown is not None:
        raise InputError(f"{folder / str(files.golds)}: gold of {unknown}, a question not in {files.entries}")


def _golds(path: Path, task: Task) -> dict[str, str]:
    """Question id to answer, from `{"task", "golds": [{"id", "output"}]}`."""
    outputs = document(path)
    named = outputs.get("task")
    # The benchmark's own name for either LaMP_2 is LaMP_2.
    if named not in (task.name, task.name.rstrip("MN")):
        raise InputError(f"{path}: answers of task {named!r}, not of {task.name}")
    golds: dict[str, str] = {}
    for number, gold in enumerate(_list(outputs, "golds", str(path)), start=1):
        place = f"{path}, gold {number}"
        if not isinstance(gold, dict):
            raise InputError(f"{place}: expected an object")
        name = _text(gold, "id", place)
        if name in golds:
            raise InputError(f"{place}: the second of question {name}")
        golds[name] = _text(gold, "output", place)
    return golds


def _history(items: list[Any], task: Task, place: str) -> list[dict[str, Any]]:
    """The items as given but for the answer, which becomes a text; oldest first if all are dated."""
    if not items:
        raise InputError(f"{place}: an empty history")
    history = []
    for number, item in enumerate(items, start=1):
        where = f"{place}, history item {number}"
        if not isinstance(item, dict):
            raise InputError(f"{where}: expected an object")
        _text(item, task.field, where)
        history.append({**item, task.answer: _text(item, task.answer, where)})
    if all("date" in item for item in history):
        history.sort(key=lambda item: _date(item["date"], place))
    return history


def _date(date: Any, place: str) -> tuple[int, ...]:
    """`2012-05-18`, `2012-5-18 10:11:12` or `2012` as numbers that sort."""
    text = str(date)
    if isinstance(date, bool) or not re.fullmatch(r"[0-9]{1,18}([-/:.T ]+[0-9]{1,18})*Z?", text):
        raise InputError(f"{place}: date {text[:40]!r} is not like 2012-05-18")
    return tuple(int(number) for number in re.findall(r"[0-9]+", text))


def _question(question: Any, golds: dict[str, str] | None, asked: set[str], place: str) -> dict[str, str]:
    if not isinstance(question, dict):
        raise InputError(f"{place}: expected each question to be an object")
    name, text = _text(question, "id", place), _text(question, "input", place)
    if name in asked:
        raise InputError(f"{place}: question id {name} is used twice")
    asked.add(name)
    if golds is None:
        gold = _text(question, "gold", f"{place}, question {name}")
    elif name in golds:
        gold = golds[name]
    else:
        raise InputError(f"{place}: question {name} has no gold")
    return {"id": name, "input": text, "gold": gold}


def _text(value: dict[str, Any], key: str, place: str) -> str:
    """A text under `key`; a whole number counts as one."""
    if key not in value:
        raise InputError(f"{place}: no {key!r}")
    text = value[key]
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise InputError(f"{place}: {key!r} must be a text, found {type(text).__name__}")
    return str(text)


def _list(value: dict[str, Any], key: str, place: str) -> list[Any]:
    if not isinstance(value.get(key), list):
        raise InputError(f"{place}: no list under {key!r}")
    found: list[Any] = value[key]
    return found
