"""A client's own folder: who they are, what they wrote, and their answered questions.

client.json       {"name", "task", "shares_metrics"}; "history" and "questions" where those are elsewhere;
                  "sealed": true where items and questions are in the vault, false where they will be
history.jsonl     one item per line, with the fields of its task, oldest first
answered.jsonl    {"id", "input", "gold"} per line: questions answered in the past; may be absent
questions.jsonl   the same, held out for measuring and never trained on; may be absent
vault/            sealed: personal shifts, learned items, imported history
.client.lock      held by whoever changes client.json, or the consent beside it
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NotRequired

from filelock import FileLock
from typing_extensions import TypedDict

from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import MissingFileError
from fedperfit.protocol.system.files import json_lines, write_json, write_json_lines
from fedperfit.protocol.tasks import Pair, PromptForm, Task, task_by_name
from fedperfit.protocol.tasks.conversations import Cut, unfolded, whole
from fedperfit.protocol.tasks.door import Tell, admitted, admitted_item, admitted_question, nothing_let_in

SEALED = "sealed"
"""Key in client.json that says that the history is sealed in the vault."""
FILES = {"history": "history.jsonl", "answered": "answered.jsonl", "questions": "questions.jsonl"}
"""Fields of client.json that may name a file elsewhere, and the files' names in the folder."""
_LOCK = ".client.lock"
_ADMIT = {"history": admitted_item, "answered": admitted_question, "questions": admitted_question}


@dataclass(frozen=True)
class History:
    """One person's items and questions, all of one task."""

    name: str
    """Name of the client."""
    task: Task
    items: list[dict[str, Any]]
    """History items with the fields of the task, oldest first."""
    answered: list[dict[str, Any]] = field(default_factory=list)
    """Questions answered in the past, `{"input", "gold"}` each: trained on like items."""
    questions: list[dict[str, Any]] = field(default_factory=list)
    """Questions held out for measuring, `{"id", "input", "gold"}` each: never trained on."""
    shares_metrics: bool = False
    """Whether metric sums may leave in replies to the cloud."""
    sealed: bool = False
    """Whether items and questions are in the vault, which `Agent` adds."""
    remarks: tuple[str, ...] = ()
    """Lines of the files that were left out or taken as something else, each with its number."""

    def pairs(self, form: PromptForm, latest: int) -> list[Pair]:
        """Training pairs, oldest first: past questions, then items.

        Args:
            form: form of prompts and targets.
            latest: number of latest pairs; 0 for all.
        """
        pairs = [self.task.query_pair(past["input"], past["gold"], form) for past in self.answered]
        pairs += [self.task.item_pair(item, form) for item in self.items]
        return pairs[-latest:]

    @property
    def judged(self) -> list[dict[str, Any]]:
        """Held-out questions with a right answer: sums of scores tell of these alone."""
        return [held for held in self.questions if held["gold"].strip()]

    def asked(self, form: PromptForm) -> list[Pair]:
        """Prompts of the held-out questions that are judged, with the right answers as targets."""
        return [
            Pair(self.task.asked(held["input"], form), self.task.target(held["gold"], form))
            for held in self.judged
        ]


class About(TypedDict):
    """What client.json says of a person."""

    name: Any
    task: str
    shares_metrics: Any
    sealed: NotRequired[Any]
    history: NotRequired[str]
    answered: NotRequired[str]
    questions: NotRequired[str]


def admit_part(
    task: Task,
    part: str,
    values: Iterable[tuple[int | str, Any]],
    place: str,
    tell: Tell,
    cut: Cut = whole,
) -> Iterator[dict[str, Any]]:
    """Let the entries of one part of a history through the task's door; a bad one costs itself alone.

    Args:
        task: task of the history.
        part: history, answered or questions.
        values: numbers and entries.
        place: name of an entry before its number, for what is told.
        tell: told of each entry that is left out or changed, without a word of it.
        cut: leaves out what comes too long before a turn of a conversation.
    """
    keys = (task.field, task.answer) if part == "history" else ("messages", "gold")
    values = unfolded(values, task.conversation, *keys, cut)
    if part != "history" and task.conversation:
        values = ((number, _asked(value)) for number, value in values)
    return admitted(values, partial(_ADMIT[part], task), place, tell, quoting=False)


def _asked(value: Any) -> Any:
    """Return a question with the conversation that it was unfolded from as its input."""
    return {"input": value["messages"], **value} if isinstance(value, dict) and "messages" in value else value


def _file(folder: Path, about: Mapping[str, object], part: str) -> Path:
    return folder / str(about.get(part, FILES[part]))


def read_history(folder: Path, cut: Cut = whole) -> History:
    """Read a client's folder; a bad line costs that line alone, and is told in `remarks`.

    Args:
        folder: a folder with client.json and history.jsonl, and questions.jsonl and answered.jsonl where
            there are any. Where client.json says that a vault holds the history, it comes without items.
        cut: leaves out what comes too long before a turn of a conversation.

    Returns:
        The person's name, task, items and questions, oldest first.

    Raises:
        InputError: A file is missing, or no line of it can be used, or client.json is wrong; it is named.
    """
    return history_of(folder, read_form(folder / "client.json", About), cut)


def history_of(folder: Path, about: About, cut: Cut = whole) -> History:
    """Read the history of a client's folder as `read_history` does, with what client.json is to say.

    Args:
        folder: the folder, which need not be there where the files are elsewhere.
        about: content of client.json.
        cut: leaves out what comes too long before a turn of a conversation.
    """
    name, task, shares = about["name"], task_by_name(about["task"]), about["shares_metrics"]
    if about.get(SEALED) is True:
        return History(str(name), task, [], shares_metrics=shares is True, sealed=True)
    remarks: list[str] = []

    def entries(part: str) -> list[dict[str, Any]]:
        path = _file(folder, about, part)
        if part != "history" and not path.exists():
            return []
        before = len(remarks)
        let_in = list(admit_part(task, part, json_lines(path), f"{path}, line", remarks.append, cut))
        if not let_in and remarks[before:]:
            raise nothing_let_in(remarks[before:])
        return let_in

    return History(
        name=str(name),
        task=task,
        shares_metrics=shares is True,
        items=entries("history"),
        answered=entries("answered"),
        questions=entries("questions"),
        remarks=tuple(remarks),
    )


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Keep all others from changing client.json and consent.json inside the block, which reads them anew.

    Args:
        folder: the person's own folder.

    Raises:
        MissingFileError: there is no such folder.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder")
    with FileLock(folder / _LOCK):
        yield


def files_to_seal(folder: Path) -> list[Path]:
    """List the files of a history that the vault is to import; none where it did, or is not to.

    Args:
        folder: the person's own folder.
    """
    about = read_form(folder / "client.json", About)
    if about.get(SEALED) is not False:
        return []
    files = [_file(folder, about, part) for part in FILES]
    return [file for file in files if file.exists()]


def write_history(folder: Path, history: History) -> None:
    """Write a client's folder that `read_history` reads again.

    Args:
        folder: the client's own folder.
        history: content of its files.
    """
    write_json_lines(folder / "history.jsonl", history.items)
    write_json_lines(folder / "answered.jsonl", history.answered)
    write_json_lines(folder / "questions.jsonl", history.questions)
    about = {"name": history.name, "task": history.task.reference, "shares_metrics": history.shares_metrics}
    write_json(folder / "client.json", about)
