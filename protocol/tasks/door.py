"""The door for data: an answer in another dress is taken as the task's, a wrong one costs its line alone."""

import html
import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from fedperfit.protocol.system.errors import InputError, printable
from fedperfit.protocol.tasks.conversations import as_text, asked_turns, turns_of
from fedperfit.protocol.tasks.numbers import readings
from fedperfit.protocol.tasks.task import Task

_SHOWN = 60
"""Characters of a wrong value that are quoted."""
_TYPED = {
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-"),
    **dict.fromkeys(map(ord, "\u2018\u2019\u02bc"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e"), '"'),
    **dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad"), ""),
}
"""Characters that programs put in the place of what was typed, or between letters unseen."""
_TOLD = 3
"""Reasons that are told where nothing was let in."""
Tell = Callable[[str], None]
"""Callback that is told of every line that is left out or changed."""


class WrongAnswer(InputError):
    """An answer that is none of the task's, or may be several; its text quotes the answer."""

    def __init__(self, name: str, answer: str, expected: Sequence[str], meant: Sequence[str]) -> None:
        """Make the error; `unquoted` tells it where the answer is nobody else's to read.

        Args:
            name: Name of the answer's field.
            answer: The answer.
            expected: All answers of the task.
            meant: Those that it may be.
        """
        shown = f"{answer[:_SHOWN]}…" if len(answer) > _SHOWN else answer
        all_of_them = ", ".join(expected)
        several = f"may be {' or '.join(meant)}; " if meant else ""
        super().__init__(f"{name}={shown!r}: {several}expected one of {all_of_them}")
        self.unquoted = f"{name} is {'several' if meant else 'none'} of {all_of_them}"


def admitted_answer(task: Task, value: Any) -> str:
    """Return an answer as the task words it: a text as it stands, a label whatever its case or type.

    A number may have a comma before its decimals.

    Args:
        task: Task of the answer.
        value: Any JSON value.

    Raises:
        InputError: It is not a text.
        WrongAnswer: No label or several are meant.
    """
    text = _as_text(value, task.answer)
    if task.parse(text) is not None:
        return text
    plain = _plain(text)
    meant = [label for label in task.labels if _plain(label) == plain]
    if not meant and isinstance(plain, str):
        numbers = [float(number) for number in readings(plain)]
        meant = [label for label in task.labels if _plain(label) in numbers]
    if len(meant) != 1:
        raise WrongAnswer(task.answer, text, task.labels, meant)
    return meant[0]


def admitted_item(task: Task, item: Any) -> dict[str, Any]:
    """Return a history item with its fields as texts and its answer as the task words it.

    Args:
        task: Task of the item.
        item: Any JSON value.

    Raises:
        InputError: It is no object, lacks a field, or its answer is not one of the task's.
    """
    if not isinstance(item, Mapping):
        raise InputError("expected an object")
    values = _encodable(dict(item))
    for key in (*task.fields, task.answer):
        if key not in values:
            raise InputError(f"no text field {key!r}")
        spoken = task.conversation and key == task.field
        values[key] = _as_text(as_text(turns_of(values[key])) if spoken else values[key], key)
    return {**values, task.answer: admitted_answer(task, values[task.answer])}


def admitted_question(task: Task, question: Any) -> dict[str, Any]:
    """Return a question with a text, and a gold answer as the task words it; an empty gold stays empty.

    Args:
        task: Task of the question.
        question: Any JSON value, `{"input", "gold"}`.

    Raises:
        InputError: It is no object, lacks text or gold, is of another task, or its gold is not one of the
            task's.
    """
    if not isinstance(question, Mapping):
        raise InputError("expected an object")
    values = _encodable(dict(question))
    for key in ("input", "gold"):
        if key not in values:
            raise InputError(f"no text field {key!r}")
        spoken = task.conversation and key == "input"
        values[key] = _as_text(as_text(asked_turns(values[key])) if spoken else values[key], key)
    task.query_fields(values["input"])
    return {**values, "gold": values["gold"] and admitted_answer(task, values["gold"])}


def admitted(
    values: Iterable[tuple[int | str, Any]],
    admit: Callable[[Any], dict[str, Any]],
    place: str,
    tell: Tell,
    *,
    quoting: bool = True,
) -> Iterator[dict[str, Any]]:
    """Let values through the door one by one; a bad one costs itself alone.

    Args:
        values: Numbers or places, and JSON values; an InputError stands for what could not be read.
        admit: Returns a value as it is let in, or raises InputError.
        place: Name of a value before its number, for what is told.
        tell: Told of each value that is left out or whose answer is taken as another word.
        quoting: Whether what is told quotes answers; a person's own go to no terminal or log.
    """
    for number, value in values:
        try:
            if isinstance(value, InputError):
                raise value
            let_in = admit(value)
        except InputError as error:
            why = error.unquoted if isinstance(error, WrongAnswer) and not quoting else error
            tell(f"{place} {number}: {why}; left out")
            continue
        for key in let_in:
            if isinstance(value[key], str) and value[key] != let_in[key]:
                taken = f"{key}={value[key][:_SHOWN]!r} is taken as {let_in[key][:_SHOWN]!r}"
                tell(f"{place} {number}: {taken if quoting else f'{key} is taken as another word'}")
        yield let_in


def admitted_name(value: Any) -> str:
    """Return a person's name as one text, however its accents are put in and its blanks are made.

    Args:
        value: Any JSON value.

    Raises:
        InputError: It is no text or whole number, is empty, or has characters that are not shown.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers of which some are missing holds such
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text or printable(text) != text:
        raise InputError(f"no user in {value!r:.60}")
    return "".join(
        " " if unicodedata.category(letter) == "Zs" else letter
        for letter in unicodedata.normalize("NFC", text)
    )


def nothing_let_in(remarks: Sequence[str]) -> InputError:
    """Return the error that tells why nothing was let in: the first reasons, and how many more there are."""
    more = len(remarks) - _TOLD
    return InputError("; ".join(remarks[:_TOLD]) + (f"; and {more} more" if more > 0 else ""))


def _as_text(value: Any, key: str) -> str:
    """Return a text, or a number or truth value as JSON writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{key!r} is missing: {value} is no text")
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise InputError(f"{key!r} must be a text, found {type(value).__name__}")


def _encodable(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object with halves of characters, which no file can hold, replaced."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError as error:
        raise InputError(f"neither text nor number: {error}") from None
    try:
        text.encode()
    except UnicodeEncodeError:
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return dict(json.loads(whole))
    return value


def _plain(text: str) -> str | float:
    """Return what two ways to write one label have in common: a number's value, or the text without dress."""
    text = unicodedata.normalize("NFKC", html.unescape(text).translate(_TYPED)).casefold()
    text = " ".join(text.split())
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) and "_" not in text else text
