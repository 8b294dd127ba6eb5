"""Items in a record: its own columns, a list under one of them, numbered columns, texts made of several."""

import json
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Annotated, Any

from pydantic import Field

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Task
from fedperfit.protocol.tasks.task_file import Table
from fedperfit.simulation.data.table_files import Record

NUMBER = "{n}"
"""What stands for 1, 2, 3 and so on in the names of numbered columns."""


class QuestionTable(Table):
    """Columns of the question that each record asks beside its list of items."""

    text: str
    """Column of the question, worded as in the data or the bare field."""
    target: str
    """Column of its answer."""


class ColumnsTable(Table):
    """The keys that say where in a record the items are."""

    user: str
    """Column that names the person."""
    time: str = ""
    """Column with dates, which begin with the year, or numbers; without it, items are as in the file."""
    target: str = ""
    """Column of the task's target; by default of the same name."""
    fields: Annotated[dict[str, str], Field(default_factory=dict)]
    """Columns of the task's fields, where these have other names."""
    templates: Annotated[dict[str, str], Field(default_factory=dict)]
    """Texts of fields that are made of several columns, which stand in braces."""
    items: str = ""
    """Column with a list of items, in which fields, target and time are then looked for."""
    question: QuestionTable | None = None
    """Question of each record, held out in place of a share of the items; it needs `items`."""


class Columns:
    """Columns of one mapping, for one task.

    Attributes:
        table: Keys of the mapping.
        of: Columns, patterns of numbered ones, or templates, of the task's fields and of its target.
        numbered: Whether some columns are numbered: then all of a table are read.
    """

    def __init__(self, table: ColumnsTable, task: Task, source: str) -> None:
        """Check the columns.

        Args:
            table: The mapping's keys.
            task: Task of the data.
            source: Name of the mapping's file, for errors.

        Raises:
            InputError: A field is none of the task's, or keys exclude each other; one line.
        """
        for key, names in (("fields", table.fields), ("templates", table.templates)):
            for name in names:
                if name not in task.fields:
                    raise InputError(
                        f"{source}: {key}.{name}: {task.name} has the fields {', '.join(task.fields)}"
                    )
        self._templates = {text: _named(text, source) for text in table.templates.values()}
        self.table, self._task = table, task
        self.of = {name: table.fields.get(name, name) for name in task.fields} | table.templates
        self.of[task.answer] = table.target or self.of.get(task.answer, task.answer)
        self.numbered = any(NUMBER in column for column in self.of.values())
        if table.question is not None and not table.items:
            raise InputError(f"{source}: question: expected beside `items`, the column of a person's items")
        if self.numbered and table.items:
            raise InputError(f"{source}: numbered columns or `items`, not both")

    def wanted(self) -> list[str]:
        """List the columns that every record must have."""
        if self.table.items:
            question = self.table.question
            asked = [question.text, question.target] if question is not None else []
            return list(dict.fromkeys([self.table.user, self.table.items, *asked]))
        if self.numbered:
            first = [column.replace(NUMBER, "1") for column in self.of.values()]
            return list(dict.fromkeys([self.table.user, *first]))
        return self.needed()

    def needed(self) -> list[str]:
        """List the columns that every item must have, after `entries`."""
        plain = [
            column
            for name, column in self.of.items()
            if column not in self._templates and not (self._task.conversation and name == self._task.answer)
        ]
        made = [column for names in self._templates.values() for column in names]
        time = [self.table.time] if self.table.time else []
        return list(dict.fromkeys([self.table.user, *plain, *made, *time]))

    def entries(self, records: Iterator[Record]) -> Iterator[tuple[int | str, Any]]:
        """Yield the items of records, each with its place and the person's name beside its own columns.

        Args:
            records: Numbers and records; what is no object passes.
        """
        for number, record in records:
            if not isinstance(record, Mapping) or not (self.table.items or self.numbered):
                yield number, self._made(record)
                continue
            found = self._listed(record) if self.table.items else self._counted(record)
            for place, item in enumerate(found, start=1):
                yield f"{number}, item {place}", self._made(item)

    def _listed(self, record: Mapping[str, Any]) -> list[Any]:
        """Items of a list, which may be written as JSON text."""
        column = self.table.items
        items = record.get(column)
        if isinstance(items, str):
            try:
                items = json.loads(items)
            except (ValueError, RecursionError):
                items = None
        if not isinstance(items, list):
            return [InputError(f"no list under {column!r}")]
        named = {self.table.user: record[self.table.user]} if self.table.user in record else {}
        return [{**item, **named} if isinstance(item, Mapping) else item for item in items]

    def _counted(self, record: Mapping[str, Any]) -> list[Any]:
        """Items of numbered columns, up to the first number without a target or a field."""
        items: list[Any] = []
        columns = [column for column in self.of.values() if NUMBER in column]
        while all(
            record.get(column.replace(NUMBER, str(len(items) + 1))) not in (None, "") for column in columns
        ):
            number = str(len(items) + 1)
            named = {column: record[column.replace(NUMBER, number)] for column in columns}
            items.append({**record, **named})
        return items or [InputError(f"no {columns[0].replace(NUMBER, '1')!r}")]

    def _made(self, item: Any) -> Any:
        """Add the texts that are made of several columns; a missing column is told later."""
        if not isinstance(item, Mapping) or not self._templates:
            return item
        texts = {
            text: text.format(**{name: "" if item[name] is None else item[name] for name in names})
            for text, names in self._templates.items()
            if all(name in item for name in names)
        }
        return {**item, **texts}


def _named(template: str, source: str) -> list[str]:
    """Return the names of columns in a template."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"{source}: broken template ({error}); a brace itself is written twice") from None
    names = [name for _, name, _, _ in parts if name is not None]
    dressed = any(detail or conversion for _, _, detail, conversion in parts)
    if not names or dressed or not all(name.isidentifier() for name in names):
        raise InputError(f"{source}: {template[:60]!r}: expected columns in braces")
    return names
