"""LaMP's two published file layouts, read as rows of one kind.

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

from fedperfit.protocol.system.errors import InputError, MissingFileError
from fedperfit.protocol.tasks import Task
from fedperfit.simulation.data.json_stream import document, elements

GROUPS = ("others", "targets")
"""Users whose data train the collective shift, and those who fit a personal shift."""


class LampRow(TypedDict):
    """A user, or in the time split one of a user's questions; lists are JSON texts."""

    name: str
    history: str
    questions: str


class Layout(StrEnum):
    """Publisher of the files, and how they split users."""

    OPPU = "OPPU"
    USER_SPLIT = "official, user split"
    TIME_SPLIT = "official, time split"
    OWN_USERS = "own data, user split"
    OWN_TIME = "own data, time split"


@dataclass(frozen=True)
class GroupFiles:
    """Files of one group of users."""

    group: str
    entries: str
    """File with the list of profiles and questions."""
    golds: str | None
    """File with the answers, or None where they are among the entries."""


OPPU_FILES = (
    GroupFiles("others", "user_others.json", None),
    GroupFiles("targets", "user_top_100_history.json", "user_top_100_history_label.json"),
)
OFFICIAL_FILES = (
    GroupFiles("others", "train_questions.json", "train_outputs.json"),
    GroupFiles("targets", "dev_questions.json", "dev_outputs.json"),
)


def file_names(files: tuple[GroupFiles, ...]) -> list[str]:
    """List all names in `files`."""
    return [name for one in files for name in (one.entries, one.golds) if name]


def detect(folder: Path) -> tuple[GroupFiles, ...]:
    """Return the files of the layout that is in `folder`.

    Raises:
        InputError: The folder is missing or has no, or both, or an incomplete layout; the message names the
            missing files.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder")
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
    """Return the layout of `files`; the time split is known by the `user_id` of its first question.

    Args:
        folder: Folder that holds the files.
        files: Result of `detect`.
    """
    if files is OPPU_FILES:
        return Layout.OPPU
    first = next(elements(folder / files[0].entries), None)
    timed = isinstance(first, dict) and "user_id" in first
    return Layout.TIME_SPLIT if timed else Layout.USER_SPLIT


def rows(folder: Path, files: GroupFiles, layout: Layout, task: Task) -> Iterator[LampRow]:
    """Check and convert the entries of one group, one at a time.

    Args:
        folder: Folder that holds the files.
        files: The group's files.
        layout: Layout of the files.
        task: Task that is worked on.

    Raises:
        InputError: There is something that a study could not use: broken JSON, missing or mistyped keys, an
            empty history, a question without gold, a gold without question, an id used twice, another task's
            answers, or no user. The message names file and user.
    """
    path = folder / files.entries
    golds = None if files.golds is None else _golds(folder / files.golds, task)
    users: set[str] = set()
    question_ids: set[str] = set()  # unique among all users whose golds are in one file
    for number, entry in enumerate(elements(path), start=1):
        place = f"{path}, entry {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{place}: expected an object")
        name = _user_name(entry, files.group, layout, place)
        place += f" (user {name})"
        if name in users and layout is not Layout.TIME_SPLIT:
            raise InputError(f"{place}: the second with this id")
        users.add(name)
        questions = _list(entry, "query", place) if layout is Layout.OPPU else [entry]
        history = _history(_list(entry, "profile", place), task, place)
        if golds is None:
            question_ids = set()
        answered = [_question(question, golds, question_ids, place) for question in questions]
        yield LampRow(name=name, history=json.dumps(history), questions=json.dumps(answered))
    if not users:
        raise InputError(f"{path}: holds no users")
    unknown = next((name for name in golds or () if name not in question_ids), None)
    if unknown is not None:
        raise InputError(f"{folder / str(files.golds)}: gold of {unknown}, a question not in {files.entries}")


def _user_name(entry: dict[str, Any], group: str, layout: Layout, place: str) -> str:
    if layout is Layout.OPPU:
        return _text(entry, "user_id", place)
    timed = layout is Layout.TIME_SPLIT
    if ("user_id" in entry) is not timed:
        raise InputError(f"{place}: user_id must be in all questions (time split) or in none")
    return f"{group}-{_text(entry, 'user_id', place)}" if timed else _text(entry, "id", place)


def _golds(path: Path, task: Task) -> dict[str, str]:
    """Read answers by question id from `{"task", "golds": [{"id", "output"}]}`."""
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
    """Return the items with their answers as texts; oldest first if all are dated."""
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
        try:
            history.sort(key=lambda item: sortable_date(item["date"]))
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    return history


def sortable_date(date: Any) -> tuple[int, ...]:
    """Turn `2012-05-18`, `2012-5-18 10:11:12` or `2012` into numbers that sort.

    Raises:
        InputError: It is not like these.
    """
    text = str(date)
    if isinstance(date, bool) or not re.fullmatch(r"[0-9]{1,18}([-/:.T ]+[0-9]{1,18})*Z?", text):
        raise InputError(f"date {text[:40]!r} is not like 2012-05-18")
    return tuple(int(number) for number in re.findall(r"[0-9]+", text))


def _question(question: Any, golds: dict[str, str] | None, known_ids: set[str], place: str) -> dict[str, str]:
    if not isinstance(question, dict):
        raise InputError(f"{place}: expected each question to be an object")
    name, text = _text(question, "id", place), _text(question, "input", place)
    if name in known_ids:
        raise InputError(f"{place}: question id {name} is used twice")
    known_ids.add(name)
    if golds is None:
        gold = _text(question, "gold", f"{place}, question {name}")
    elif name in golds:
        gold = golds[name]
    else:
        raise InputError(f"{place}: question {name} has no gold")
    return {"id": name, "input": text, "gold": gold}


def _text(value: dict[str, Any], key: str, place: str) -> str:
    """Return the text under `key`; a whole number counts as one."""
    if key not in value:
        raise InputError(f"{place}: no {key!r}")
    text = value[key]
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise InputError(f"{place}: {key!r} must be a text, found {type(text).__name__}")
    return str(text)


def _list(value: dict[str, Any], key: str, place: str) -> list[Any]:
    if not isinstance(value.get(key), list):
        raise InputError(f"{place}: no list under {key!r}")
    entries: list[Any] = value[key]
    return entries
