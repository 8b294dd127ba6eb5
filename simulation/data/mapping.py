"""Data of one's own: a TOML file says which columns of which file are user, time, fields and target.

Layouts of other benchmarks are such files that ship, for a folder with files as published. Everything is read
into memory. Users are split into others and targets by file, by user, or each user's items by time; a
target's latest items become the questions that are held out, or those that the data ask.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fedperfit.protocol.system.errors import InputError, MissingFileError, count_of
from fedperfit.protocol.tasks import Task
from fedperfit.protocol.tasks.door import Tell, nothing_let_in
from fedperfit.protocol.tasks.task_file import Table, read_toml
from fedperfit.simulation.data.columns import Columns, ColumnsTable
from fedperfit.simulation.data.lamp_files import LampRow, Layout, check_folder
from fedperfit.simulation.data.own_people import Part, People, people_of
from fedperfit.simulation.data.table_files import FORMS, is_table

SUFFIX = ".toml"
"""Ending of the files that say where data of one's own are."""
_PARTS = {"others": ("train",), "targets": ("test", "val", "validation", "dev")}
"""Words in the names of a published folder's files, by the group of users in them; the first found counts."""


class SplitTable(Table):
    """How users and their items are divided."""

    by: Literal["user", "time"] = "user"
    """`user`: targets are unseen in training; `time`: everyone trains on their earlier items."""
    targets: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the users who are targets, in a split by user."""
    questions: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of a target's items, the latest, that become questions."""


class MappingTable(ColumnsTable):
    """The keys of a file that says where data of one's own are."""

    file: Annotated[str, Field(pattern=r"^[^\x00]+$")]
    """File with one record per item; a relative path starts at this file's folder."""
    split: SplitTable = SplitTable()


@dataclass(frozen=True)
class Mapping:
    """A mapping for one task, and the files that it reads."""

    columns: Columns
    split: SplitTable
    files: dict[str, list[Path]]
    """Files by group of users; a single group is split further."""
    task: Task
    layout: Layout

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
        columns = Columns(table, task, str(source))
        layout = Layout.OWN_TIME if table.split.by == "time" else Layout.OWN_USERS
        return cls(columns, table.split, {"people": [source.parent / table.file]}, task, layout)

    @classmethod
    def shipped(cls, folder: Path, task: Task) -> "Mapping | None":
        """Return the mapping that ships for the layout in which a task's data are published.

        Args:
            folder: Folder with the files, which have `train`, `val` or `test` in their names.
            task: Task of the data.

        Returns:
            The mapping; None where none ships for the task.

        Raises:
            InputError: The folder has no such files.
        """
        file = resources.files("fedperfit.configs") / "data" / f"{task.id}{SUFFIX}"
        if not file.is_file():
            return None
        table = read_toml(ColumnsTable, file.read_text(encoding="utf-8"), file.name)
        return cls(Columns(table, task, file.name), SplitTable(), _published(folder), task, Layout.PUBLISHED)

    @property
    def sources(self) -> list[Path]:
        """All files that are read."""
        return [path for paths in self.files.values() for path in paths]

    def rows(self, tell: Tell) -> dict[str, list[LampRow]]:
        """Read all users, in the form of LaMP's.

        Args:
            tell: Told of each record that is left out or changed.

        Returns:
            Rows of the others and of the targets.

        Raises:
            InputError: A file cannot be read, or there are too few users.
        """
        remarks: list[str] = []
        groups = {
            group: people_of(paths, self.columns, self.task, remarks.append)
            for group, paths in self.files.items()
        }
        for remark in remarks:
            tell(remark)
        left_out = [remark for remark in remarks if remark.endswith("left out")]
        if left_out and not any(groups.values()):
            raise nothing_let_in(left_out)
        why = f"; {nothing_let_in(left_out)}" if left_out else ""
        if len(groups) == 1:
            (users,) = groups.values()
            if len(users) < 2:
                few = f"{count_of(len(users), 'user')} with usable items; at least two are needed"
                raise InputError(f"{self.sources[0]}: {few}{why}")
            return self._divided(users, tell)
        for group, people in groups.items():
            if not people:
                raise InputError(f"{self.files[group][0]}: no users with usable items{why}")
        prefix = {group: f"{group}-" * bool(set.intersection(*map(set, groups.values()))) for group in groups}
        targets = groups["targets"]
        return {
            "others": _rows(groups["others"], prefix["others"]),
            "targets": self._asked(targets, list(targets), prefix["targets"], tell),
        }

    def _divided(self, users: People, tell: Tell) -> dict[str, list[LampRow]]:
        """Divide the users of one split, at least two."""
        if self.split.by == "time":
            names = list(users)
            others = [
                _row(f"others-{name}", self._learned(part), []) for name in names for part in users[name]
            ]
            return {"others": others, "targets": self._asked(users, names, "targets-", tell)}
        hashed = sorted(users, key=lambda name: hashlib.sha256(name.encode()).digest())
        count = min(len(users) - 1, max(1, round(len(users) * self.split.targets)))
        chosen = set(hashed[:count])
        unseen = {name: parts for name, parts in users.items() if name not in chosen}
        targets = [name for name in users if name in chosen]
        return {"others": _rows(unseen, ""), "targets": self._asked(users, targets, "", tell)}

    def _held(self, items: list[dict[str, Any]]) -> int:
        return min(len(items) - 1, max(1, round(len(items) * self.split.questions)))

    def _learned(self, part: Part) -> list[dict[str, Any]]:
        """Items of a target that stay its history."""
        items = part.items
        return items if self.columns.table.question else items[: len(items) - self._held(items)]

    def _asked(self, users: People, names: list[str], prefix: str, tell: Tell) -> list[LampRow]:
        rows = []
        for name in names:
            for part in users[name]:
                questions = part.questions if self.columns.table.question else self._latest(name, part)
                if not questions:
                    tell(f"{self.sources[-1]}, user {name}: no question is left")
                rows.append(_row(f"{prefix}{name}", self._learned(part), questions))
        return rows

    def _latest(self, name: str, part: Part) -> list[dict[str, str]]:
        """Questions about the items that are held out."""
        items = part.items
        held = items[len(items) - self._held(items) :]
        return [
            {"id": f"{name}-{number}", "input": self.task.question(item), "gold": item[self.task.answer]}
            for number, item in enumerate(held)
        ]


def _published(folder: Path) -> dict[str, list[Path]]:
    """Return a published folder's files by the group of users in them.

    Raises:
        InputError: It has none.
    """
    check_folder(folder)
    paths = [path for path in sorted(folder.iterdir()) if is_table(path)]
    words = {path: set(re.split(r"[^a-z]+", path.name.lower())) for path in paths}
    found: dict[str, list[Path]] = {}
    for group, parts in _PARTS.items():
        named = [[path for path in paths if part in words[path]] for part in parts]
        if chosen := next((some for some in named if some), []):
            found[group] = chosen
    if not found:
        raise InputError(
            f"{folder}: no file with train, val or test in its name that ends in {', '.join(FORMS)}"
        )
    return found


def _rows(users: People, prefix: str) -> list[LampRow]:
    return [
        _row(f"{prefix}{name}", part.items, part.questions) for name, parts in users.items() for part in parts
    ]


def _row(name: str, items: list[dict[str, Any]], questions: list[dict[str, str]]) -> LampRow:
    return LampRow(name=name, history=json.dumps(items), questions=json.dumps(questions))
