"""People in files of one's own: their items, dated, and the questions that their records ask."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Task
from fedperfit.protocol.tasks.conversations import unfolded
from fedperfit.protocol.tasks.door import Tell, admitted, admitted_answer, admitted_item, admitted_name
from fedperfit.protocol.tasks.numbers import readings
from fedperfit.simulation.data.columns import Columns
from fedperfit.simulation.data.lamp_files import sortable_date
from fedperfit.simulation.data.table_files import records

_DATE, _NUMBER = "date", "number"
"""Kinds of times, as errors call them."""
_DIGITS = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_YEAR_FIRST = re.compile(r"[0-9]{4}(\.[0-9]{1,2}|[0-9]{4})?")
"""Years, months and days that are written like numbers: `2012`, `2012.05`, `20120518`."""

Moment = tuple[int | Decimal, ...]
"""A time as numbers that sort: parts of a date, or one number."""


@dataclass
class Part:
    """Items of a person, and the questions that their record asks."""

    dated: list[tuple[Moment, dict[str, Any]]] = field(default_factory=list)
    """Items with their times, as they came."""
    questions: list[dict[str, str]] = field(default_factory=list)
    """Questions as `LampRow` has them."""

    @property
    def items(self) -> list[dict[str, Any]]:
        """Items of the part by themselves, oldest first."""
        return [item for _, item in sorted(self.dated, key=lambda one: one[0])]


@dataclass(frozen=True)
class _Times:
    """Times of all files, either dates or numbers, as most can be: beside each other these have no order."""

    kind: str = _DATE
    example: str = ""
    """The first time that is of this kind."""

    @classmethod
    def of(cls, values: Iterable[Any]) -> "_Times":
        """Find out whether times are dates or numbers; `2012` may be both."""
        counts, examples = {_DATE: 0, _NUMBER: 0}, {_DATE: "", _NUMBER: ""}
        for value in values:
            try:
                kinds = list(_moments(value))
            except InputError:
                continue
            for kind in kinds:
                counts[kind] += 1
                examples[kind] = examples[kind] or str(value).strip()
        kind = max(counts, key=lambda one: counts[one])
        return cls(kind, examples[kind])

    def moment(self, value: Any) -> Moment:
        """Turn a time into numbers that sort; raises InputError where it is unlike most others."""
        moments = _moments(value)
        if self.kind not in moments:
            raise InputError(
                f"time {str(value).strip()!r:.60} cannot be ordered beside {self.example!r:.60}: "
                "one is a date, the other a number"
            )
        return moments[self.kind]


People = dict[str, list[Part]]
"""People by name: one part each, or one for each record that asks a question."""


def people_of(paths: list[Path], columns: Columns, task: Task, tell: Tell) -> People:
    """Read the people of some files.

    Args:
        paths: Files with records.
        columns: Where in a record the items are.
        task: Task of the items.
        tell: Told of each item or question that is left out or changed.

    Raises:
        InputError: A file cannot be read.
    """
    people: People = {}
    times = _Times.of(_all_times(paths, columns))
    for path in paths:
        counted, read = records(path, columns.wanted(), tell, whole=columns.numbered)
        place = f"{path}, {counted}"
        if columns.table.question is None:
            _admit(columns.entries(read), people, times, columns, task, place, tell)
            continue
        for number, record in read:
            own: People = {}
            _admit(columns.entries(iter([(number, record)])), own, times, columns, task, place, tell)
            for name, (part,) in own.items():
                parts = people.setdefault(name, [])
                try:
                    part.questions.append(_question(record, f"{name}-{len(parts)}", columns, task))
                except InputError as error:
                    tell(f"{place} {number}: {error}; the question is left out")
                parts.append(part)
    return people


def _all_times(paths: list[Path], columns: Columns) -> Iterator[Any]:
    """Yield the times in all files, which are read once more for them where there are any."""
    time = columns.table.time
    for path in paths if time else []:
        _, read = records(path, columns.wanted(), lambda remark: None, whole=columns.numbered)
        for _, item in columns.entries(read):
            if isinstance(item, Mapping) and time in item:
                yield item[time]


def _admit(
    entries: Iterator[tuple[int | str, Any]],
    people: People,
    times: _Times,
    columns: Columns,
    task: Task,
    place: str,
    tell: Tell,
) -> None:
    """Let items through the door, each to its person."""
    keys = (columns.of[task.field], columns.of[task.answer])
    user, time, needed = columns.table.user, columns.table.time, columns.needed()

    def admit(record: Any) -> dict[str, Any]:
        if not isinstance(record, dict):
            raise InputError("expected an object")
        for column in needed:
            if column not in record:
                raise InputError(f"no {column!r}")
        name = admitted_name(record[user])
        item = admitted_item(task, {key: record.get(column) for key, column in columns.of.items()})
        if not item[task.answer].strip():
            raise InputError(f"{task.answer} is empty")
        moment = times.moment(record[time]) if time else ()
        people.setdefault(name, [Part()])[0].dated.append((moment, item))
        return {columns.of[key]: value for key, value in item.items()}

    for _ in admitted(unfolded(entries, task.conversation, *keys), admit, place, tell):
        pass


def _question(record: dict[str, Any], identity: str, columns: Columns, task: Task) -> dict[str, str]:
    """Make the question that a record asks."""
    asked = columns.table.question
    assert asked is not None
    for column in (asked.text, asked.target):
        if not isinstance(record.get(column), str) or not record[column].strip():
            raise InputError(f"no text under {column!r}")
    text = record[asked.text]
    worded = text if task.marker and task.marker in text else task.question({task.field: text})
    task.query_fields(worded)
    return {"id": identity, "input": worded, "gold": admitted_answer(task, record[asked.target])}


def _moments(value: Any) -> dict[str, Moment]:
    """Turn a date, a time or a number of seconds into numbers that sort, by each kind that it may be."""
    counted = isinstance(value, int | float) and not isinstance(value, bool)
    text = value.isoformat() if isinstance(value, date) else repr(value) if counted else value
    if not isinstance(text, str):
        raise InputError(f"no time in {value!r:.60}")
    text = text.strip()
    numbers = [text] if _DIGITS.fullmatch(text) else readings(text)
    if len(numbers) > 1:
        raise InputError(f"no time in {text!r:.60}: it may be {' or '.join(numbers)}")
    if not numbers:
        return {_DATE: _date(text)}
    found: dict[str, Moment] = {_NUMBER: (Decimal(numbers[0]),)}
    if not isinstance(value, float) and _YEAR_FIRST.fullmatch(text):
        with suppress(InputError):
            found[_DATE] = _date(text)
    return found


def _date(text: str) -> Moment:
    """Turn a date or a date and time into numbers that sort."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        if len(text) == 8 and text.isdigit():
            raise InputError(f"date {text!r}: there is no such day") from None
        return sortable_date(text)
    if moment.tzinfo is not None:
        try:
            moment = moment.astimezone(UTC)
        except OverflowError:
            raise InputError(f"no time in {text!r:.60}: outside the years 1 to 9999") from None
    return (*moment.timetuple()[:6], moment.microsecond)
