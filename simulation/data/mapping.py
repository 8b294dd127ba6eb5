"""Data of one's own: a TOML file says which columns of which file are user, time, fields and target.

Everything is read into memory. Users are split into others and targets by user, or each user's items by
time; a target's latest items become the questions that are held out.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fedperfit.protocol.system.errors import InputError, MissingFileError
from fedperfit.protocol.tasks import Task
from fedperfit.protocol.tasks.conversations import unfolded
from fedperfit.protocol.tasks.door import Tell, admitted, admitted_item
from fedperfit.protocol.tasks.task_file import Table, read_toml
from fedperfit.simulation.data.lamp_files import LampRow, sortable_date
from fedperfit.simulation.data.table_files import records

SUFFIX = ".toml"
"""Ending of the files that say where data of one's own are."""


class SplitTable(Table):
    """How users and their items are divided."""

    by: Literal["user", "time"] = "user"
    """`user`: targets are unseen in training; `time`: everyone trains on their earlier items."""
    targets: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the users who are targets, in a split by user."""
    questions: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of a target's items, the latest, that become questions."""


class MappingTable(Table):
    """The keys of a file that says where data of one's own are."""

    file: str
    """File with one record per item; a relative path starts at this file's folder."""
    user: str
    """Column that names the person."""
    time: str = ""
    """Column with dates or times; without it, items are in the order of the file."""
    target: str = ""
    """Column of the task's target; by default of the same name."""
    fields: Annotated[dict[str, str], Field(default_factory=dict)]
    """Columns of the task's fields, where these have other names."""
    split: SplitTable = SplitTable()


@dataclass(frozen=True)
class Mapping:
    """A mapping for one task, and the file that it reads."""

    table: MappingTable
    path: Path
    task: Task

    @classmethod
    def read(cls, source: Path, task: Task) -> "Mapping":
        """Read a mapping; raises InputError, one line, for any mistake in it."""
        try:
            text = source.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise MissingFileError(f"{source}: no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{source}: {error}") from None
        table = read_toml(MappingTable, text, str(source))
        for name in table.fields:
            if name not in task.fields:
                raise InputError(
                    f"{source}: fields.{name}: {task.name} has the fields {', '.join(task.fields)}"
                )
        return cls(table, source.parent / table.file, task)

    def rows(self, tell: Tell) -> dict[str, list[LampRow]]:
        """Read all users, in the form of LaMP's.

        Args:
            tell: Told of each record that is left out or changed.

        Returns:
            Rows of the others and of the targets.

        Raises:
            InputError: The file cannot be read, or has too few users.
        """
        users = self._users(tell)
        if len(users) < 2:
            raise InputError(f"{self.path}: {len(users)} users with usable items; at least two are needed")
        if self.table.split.by == "time":
            names = list(users)
            others = {f"others-{name}": self._earlier(users[name]) for name in names}
            return {"others": _rows(others), "targets": self._asked(users, names, "targets-", tell)}
        hashed = sorted(users, key=lambda name: hashlib.sha256(name.encode()).digest())
        count = min(len(users) - 1, max(1, round(len(users) * self.table.split.targets)))
        chosen = set(hashed[:count])
        others = {name: items for name, items in users.items() if name not in chosen}
        targets = [name for name in users if name in chosen]
        return {"others": _rows(others), "targets": self._asked(users, targets, "", tell)}

    def _users(self, tell: Tell) -> dict[str, list[dict[str, Any]]]:
        """Items by user, oldest first."""
        table, task = self.table, self.task
        columns = {name: table.fields.get(name, name) for name in task.fields}
        columns[task.answer] = table.target or task.answer
        told = [column for name, column in columns.items() if name != task.answer or not task.conversation]
        wanted = list(dict.fromkeys([table.user, *told, *([table.time] if table.time else [])]))
        keys = (columns[task.field], columns[task.answer])
        users: dict[str, list[tuple[tuple[int, ...], dict[str, Any]]]] = {}

        def admit(record: Any) -> dict[str, Any]:
            if not isinstance(record, dict):
                raise InputError("expected an object")
            for column in wanted:
                if column not in record:
                    raise InputError(f"no {column!r}")
            name = _name(record[table.user])
            moment = _moment(record[table.time]) if table.time else ()
            item = admitted_item(task, {field: record.get(column) for field, column in columns.items()})
            if not item[task.answer].strip():
                raise InputError(f"{task.answer} is empty")
            users.setdefault(name, []).append((moment, item))
            return {columns[field]: value for field, value in item.items()}

        lines = unfolded(records(self.path, wanted), task.conversation, *keys)
        for _ in admitted(lines, admit, f"{self.path}, line", tell):
            pass
        return {name: [item for _, item in sorted(users[name], key=lambda one: one[0])] for name in users}

    def _held(self, items: list[dict[str, Any]]) -> int:
        return min(len(items) - 1, max(1, round(len(items) * self.table.split.questions)))

    def _earlier(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return items[: len(items) - self._held(items)]

    def _asked(
        self, users: dict[str, list[dict[str, Any]]], names: list[str], prefix: str, tell: Tell
    ) -> list[LampRow]:
        rows = []
        for name in names:
            items = users[name]
            held = items[len(items) - self._held(items) :]
            if not held:
                tell(f"{self.path}: user {name} has one item: no question is left for them")
            questions = [
                {"id": f"{name}-{number}", "input": self.task.question(item), "gold": item[self.task.answer]}
                for number, item in enumerate(held)
            ]
            rows.append(_row(f"{prefix}{name}", self._earlier(items), questions))
        return rows


def _rows(users: dict[str, list[dict[str, Any]]]) -> list[LampRow]:
    return [_row(name, items, []) for name, items in users.items()]


def _row(name: str, items: list[dict[str, Any]], questions: list[dict[str, str]]) -> LampRow:
    return LampRow(name=name, history=json.dumps(items), questions=json.dumps(questions))


def _name(value: Any) -> str:
    name = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not name or not name.isprintable():
        raise InputError(f"no user in {value!r:.60}")
    return name


def _moment(value: Any) -> tuple[int, ...]:
    """Turn a date, a time or a number of seconds into numbers that sort."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = repr(value)
    elif isinstance(value, datetime | date):
        value = value.isoformat()
    if not isinstance(value, str):
        raise InputError(f"no time in {value!r:.60}")
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return sortable_date(value.strip())
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return (*moment.timetuple()[:6], moment.microsecond)
