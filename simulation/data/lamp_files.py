"""LaMP's two published file layouts, read as rows of one kind.

official  {train,dev}_questions.json and {train,dev}_outputs.json, user split or time split
OPPU      user_others.json, user_top_100_history.json and user_top_100_history_label.json
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypedDict

from fedperfit.protocol.system.errors import InputError, MissingFileError, count_of
from fedperfit.protocol.tasks import Task
from fedperfit.protocol.tasks.door import Tell, admitted_answer
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
    PUBLISHED = "as published"


@dataclass(frozen=True)
class GroupFiles:
    """Files of one group of users."""

    group: str
    entries: str
    """File with the list of profiles and questions."""
    golds: str | None
    """File with the answers, or None where they are among the entries."""
    shared: bool = False
    """Whether both groups are in one file, which is then divided by user."""


OPPU_FILES = (
    GroupFiles("others", "user_others.json", None),
    GroupFiles("targets", "user_top_100_history.json", "user_top_100_history_label.json"),
)
OFFICIAL_FILES = (
    GroupFiles("others", "train_questions.json", "train_outputs.json"),
    GroupFiles("targets", "dev_questions.json", "dev_outputs.json"),
)


ONE_SPLIT = {
    part: tuple(
        GroupFiles(group, f"{part}_questions.json", f"{part}_outputs.json", shared=True) for group in GROUPS
    )
    for part in ("dev", "train")
}
"""Files of people who have an official split alone, by its name."""
_TARGETS = 0.25
"""Share of the users of a split that is there alone who are targets."""
OPPU_FOLDERS = {
    "LaMP_2N": "news_categorize",
    "LaMP_2M": "movie_tagging",
    "LaMP_3": "product_rating",
    "LaMP_4": "news_headline",
    "LaMP_5": "scholarly_title",
    "LaMP_7": "tweet_paraphrase",
}
"""Names that OPPU's folders have."""


def folder_of(root: Path, task: Task) -> Path:
    """Return the folder of a task among several, by LaMP's name or OPPU's, or `root` where there is none.

    Args:
        root: Folder of one task's files, or of such folders.
        task: Task whose files are looked for.
    """
    names = (task.name, task.name.replace("_", "-"), OPPU_FOLDERS.get(task.name, task.name))
    return next((root / name for name in names if (root / name).is_dir()), root)


def file_names(files: tuple[GroupFiles, ...]) -> list[str]:
    """List all names in `files`."""
    return [name for one in files for name in (one.entries, one.golds) if name]


def stored(folder: Path, name: str) -> Path:
    """Return the path of a file, which may be compressed by gzip and then has `.gz` after its name."""
    packed = folder / f"{name}.gz"
    return packed if packed.is_file() and not (folder / name).is_file() else folder / name


def check_folder(folder: Path) -> None:
    """Check that a folder of data is there; raises InputError, which says what to name in place of a file."""
    if folder.is_file():
        raise InputError(
            f"{folder}: is a file; expected a mapping that ends in .toml and says which column of it is what"
        )
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder")


def detect(folder: Path) -> tuple[GroupFiles, ...]:
    """Return the files of the layout that is in `folder`.

    Raises:
        InputError: The folder is missing or has no, or both, or an incomplete layout; the message names the
            missing files.
    """
    check_folder(folder)
    missing = {
        files: [name for name in file_names(files) if not stored(folder, name).is_file()]
        for files in (OPPU_FILES, OFFICIAL_FILES)
    }
    whole = [files for files, names in missing.items() if not names]
    if len(whole) == 2:
        raise InputError(f"{folder}: holds both official and OPPU files; keep one layout per folder")
    if whole:
        return whole[0]
    there = {name for name in file_names(OFFICIAL_FILES) if stored(folder, name).is_file()}
    for files in ONE_SPLIT.values():
        if there == set(file_names(files)):
            return files
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
    first = next(elements(stored(folder, files[0].entries)), None)
    timed = isinstance(first, dict) and "user_id" in first
    return Layout.TIME_SPLIT if timed else Layout.USER_SPLIT


def rows(
    folder: Path, files: GroupFiles, layout: Layout, task: Task, tell: Tell = lambda line: None
) -> Iterator[LampRow]:
    """Check and convert the entries of one group, one at a time.

    Args:
        folder: Folder that holds the files.
        files: The group's files.
        layout: Layout of the files.
        task: Task that is worked on.
        tell: Told of each answer that is no label of the task, and costs its item or question, or is taken as
            another word, and of each user who is left out for want of items.

    Raises:
        InputError: There is something else that a study could not use: broken JSON, missing or mistyped
            keys, a question without gold, a gold without question, an id used twice,
            another task's answers, or no user. The message names file and user.
    """
    path = stored(folder, files.entries)
    golds = None if files.golds is None else _golds(stored(folder, files.golds), task, tell)
    targets = _targets(path) if files.shared else set()
    users: set[str] = set()
    usable = 0
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
        if files.shared and (_own_name(entry) in targets) is not (files.group == "targets"):
            question_ids.add(str(entry.get("id")))
            continue
        questions = _list(entry, "query", place) if layout is Layout.OPPU else [entry]
        history = _history(_list(entry, "profile", place), task, place, tell)
        if not history:
            tell(f"{place}: no usable history; left out")
            question_ids.update(
                str(question.get("id")) for question in questions if isinstance(question, dict)
            )
            continue
        if golds is None:
            question_ids = set()
        asked = [_question(question, golds, question_ids, place) for question in questions]
        if golds is None:
            asked = [_admitted(question, "gold", task, place, tell) for question in asked if question]
        answered = [question for question in asked if question is not None]
        yield LampRow(name=name, history=json.dumps(history), questions=json.dumps(answered))
        usable += 1
    if not usable:
        if not users:
            raise InputError(f"{path}: holds no users")
        raise InputError(f"{path}: {count_of(len(users), 'user')}, none with a usable history")
    unknown = next((name for name in golds or () if name not in question_ids), None)
    if unknown is not None:
        raise InputError(f"{folder / str(files.golds)}: gold of {unknown}, a question not in {files.entries}")


def _targets(path: Path) -> set[str]:
    """Choose the targets among the users of a split that is there alone, by the digests of their names."""
    names = {_own_name(entry) for entry in elements(path) if isinstance(entry, dict)}
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    return set(ordered[: max(1, round(len(ordered) * _TARGETS))])


def _own_name(entry: dict[str, Any]) -> str:
    return str(entry.get("user_id", entry.get("id")))


def _user_name(entry: dict[str, Any], group: str, layout: Layout, place: str) -> str:
    if layout is Layout.OPPU:
        return _text(entry, "user_id", place)
    timed = layout is Layout.TIME_SPLIT
    if ("user_id" in entry) is not timed:
        raise InputError(f"{place}: user_id must be in all questions (time split) or in none")
    return f"{group}-{_text(entry, 'user_id', place)}" if timed else _text(entry, "id", place)


def _golds(path: Path, task: Task, tell: Tell) -> dict[str, str | None]:
    """Read answers by question id from `{"task", "golds": [{"id", "output"}]}`; None for no label."""
    outputs = document(path)
    named = outputs.get("task")
    # The benchmark's own name for either LaMP_2 is LaMP_2.
    if str(named).replace("-", "_") not in (task.name, task.name.rstrip("MN")):
        raise InputError(f"{path}: answers of task {named!r}, not of {task.name}")
    golds: dict[str, str | None] = {}
    for number, gold in enumerate(_list(outputs, "golds", str(path)), start=1):
        place = f"{path}, gold {number}"
        if not isinstance(gold, dict):
            raise InputError(f"{place}: expected an object")
        name = _text(gold, "id", place)
        if name in golds:
            raise InputError(f"{place}: the second of question {name}")
        text = {"output": _text(gold, "output", place)}
        admitted = _admitted(text, "output", task, f"{place} (question {name})", tell)
        golds[name] = None if admitted is None else admitted["output"]
    return golds


def _history(items: list[Any], task: Task, place: str, tell: Tell) -> list[dict[str, Any]]:
    """Return the items with their answers as texts; oldest first if all are dated."""
    history: list[tuple[str, dict[str, Any]]] = []
    for number, item in enumerate(items, start=1):
        where = f"{place}, history item {number}"
        if not isinstance(item, dict):
            raise InputError(f"{where}: expected an object")
        _text(item, task.field, where)
        item = {**item, task.answer: _text(item, task.answer, where)}
        if (let_in := _admitted(item, task.answer, task, where, tell)) is not None:
            history.append((where, let_in))
    if all("date" in item for _, item in history):
        return _oldest_first(history, tell)
    return [item for _, item in history]


def _oldest_first(history: list[tuple[str, dict[str, Any]]], tell: Tell) -> list[dict[str, Any]]:
    """Sort items by their dates; one whose date cannot be read has no place among them and is left out."""
    dated = []
    for where, item in history:
        try:
            dated.append((sortable_date(item["date"]), item))
        except InputError as error:
            tell(f"{where}: {error}; left out")
    return [item for _, item in sorted(dated, key=lambda one: one[0])]


def sortable_date(date: Any) -> tuple[int, ...]:
    """Turn `2012-05-18`, `2012-5-18 10:11:12` or `2012` into numbers that sort.

    Raises:
        InputError: It is not like these, does not begin with the year, or is in no calendar.
    """
    text = str(date)
    if isinstance(date, bool) or not re.fullmatch(r"[0-9]{1,18}|[0-9]{4}([-/:.T ]+[0-9]{1,18})*Z?", text):
        raise InputError(f"date {text[:40]!r} is not like 2012-05-18")
    parts = tuple(int(number) for number in re.findall(r"[0-9]+", text))
    if len(parts) > 1:
        year, month, day, hour, minute = (*parts, *(1, 1, 0, 0)[len(parts) - 1 :])[:5]
        try:
            datetime(year, month, day, hour, minute)
        except (ValueError, OverflowError):
            raise InputError(f"date {text[:40]!r}: there is no such day or time") from None
    return parts


def _admitted(value: dict[str, Any], key: str, task: Task, place: str, tell: Tell) -> dict[str, Any] | None:
    """Return a value whose answer is worded as the task words it, or None where it is no label."""
    if not value[key]:
        return value
    try:
        answer = admitted_answer(task, value[key])
    except InputError as error:
        tell(f"{place}: {error}; left out")
        return None
    if answer != value[key]:
        tell(f"{place}: {key}={value[key]!r} is taken as {answer!r}")
    return {**value, key: answer}


def _question(
    question: Any, golds: dict[str, str | None] | None, known_ids: set[str], place: str
) -> dict[str, Any] | None:
    if not isinstance(question, dict):
        raise InputError(f"{place}: expected each question to be an object")
    name, text = _text(question, "id", place), _text(question, "input", place)
    if name in known_ids:
        raise InputError(f"{place}: question id {name} is used twice")
    known_ids.add(name)
    if golds is None:
        gold = _text(question, "gold", f"{place}, question {name}")
    elif name in golds:
        if golds[name] is None:
            return None
        gold = str(golds[name])
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
