"""Self-contained pages from the templates beside this file; every text in them is escaped."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedperfit.protocol.system.errors import count_of

if TYPE_CHECKING:
    from fedperfit.simulation.report.svg import Picture

_NUMBER = re.compile(r"[+-]?[\d,]+(?:\.(\d+))?")
_FIGURE_SPACE, _POINT_SPACE = "\u2007", "\u2008"
"""Blanks as wide as a digit and as a point."""


@dataclass(frozen=True)
class Noted:
    """A cell with a note in small print behind it, mostly an estimate with its interval."""

    value: str
    note: str
    mark: str = ""
    """Sign that something holds of the value, such as `*`."""


@dataclass(frozen=True)
class Row:
    """Cells of one line of a table."""

    cells: Sequence[str | Noted]
    best: bool = False
    """Whether the row stands out."""


@dataclass(frozen=True)
class Table:
    """A table of plain texts; numbers of a column are aligned on their decimals."""

    head: Sequence[str]
    rows: Sequence[Row]
    text: bool = False
    """Whether the cells are words, to be set from the left and wrapped."""

    @property
    def columns(self) -> list[tuple[str, int]]:
        """Head of each column, and in how many columns of the page it and its notes stand."""
        return [
            (head, 2 if any(isinstance(row.cells[place], Noted) for row in self.rows) else 1)
            for place, head in enumerate(self.head)
        ]

    @property
    def aligned(self) -> list[Row]:
        """Rows in which numbers are padded to the decimals of the longest of their column."""
        most = [
            max((_decimals(row.cells[place]) for row in self.rows), default=0)
            for place in range(len(self.head))
        ]
        return [
            replace(row, cells=[_padded(cell, most[place]) for place, cell in enumerate(row.cells)])
            for row in self.rows
        ]

    def marked(self, place: int) -> bool:
        """Whether any cell of the column at `place` has a mark, so that all must leave room for one."""
        return any(isinstance(cell := row.cells[place], Noted) and cell.mark for row in self.rows)


@dataclass(frozen=True)
class Figure:
    """A picture with its title and caption."""

    title: str
    picture: "Picture"
    caption: str
    single: bool = False
    """Whether single users can be told apart in it, so that no tracker gets it."""


def shared_pictures(figures: Sequence[Figure], prefix: str = "") -> "dict[str, Picture]":
    """Pictures by title, without those in which single users can be told apart.

    Args:
        figures: Figures of a report.
        prefix: What the titles begin with.
    """
    return {f"{prefix}{one.title}": one.picture for one in figures if not one.single}


def estimate(about: Mapping[str, float], form: str = ".3f", *, mark: str = "") -> Noted:
    """The cell of a value and its interval.

    Args:
        about: The `value` and the ends `low` and `high` of its interval.
        form: Format of all three numbers; none is written as a zero with a minus.
        mark: Sign behind the value.
    """
    value, low, high = (format(about[end], form.replace(".", "z.")) for end in ("value", "low", "high"))
    return Noted(value, f"[{low}, {high}]", mark)


def render(template: str, /, **values: Any) -> str:
    """A page made of `templates/<template>`. Raises UndefinedError where it uses what `values` lack."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fedperfit.simulation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["count_of"] = count_of
    return environment


def _text(cell: str | Noted) -> str:
    return cell if isinstance(cell, str) else cell.value


def _decimals(cell: str | Noted) -> int:
    number = _NUMBER.fullmatch(_text(cell))
    return len(number[1] or "") if number else 0


def _padded(cell: str | Noted, decimals: int) -> str | Noted:
    """The cell with blanks for the decimals that its number has fewer."""
    if not decimals or not _NUMBER.fullmatch(_text(cell)):
        return cell
    own = _decimals(cell)
    blanks = ("" if own else _POINT_SPACE) + _FIGURE_SPACE * (decimals - own)
    return cell + blanks if isinstance(cell, str) else replace(cell, value=cell.value + blanks)
