"""Remarks on lines of data, summed up: of each kind one line, with how many there are and where."""

import re
from collections.abc import Iterable, Iterator, Sequence

from fedperfit.protocol.system.errors import count_of

_SINGLE = 3
"""Remarks of one kind that are still told one by one."""
_QUOTED = re.compile(r"""(['"])(?:\\.|(?!\1).)*\1""")
_COUNTED = {"line": "lines", "entry": "entries", "row": "rows"}
"""What the number of a place may count: one, and several."""


def summed_up(remarks: Iterable[str], shown: int) -> Iterator[str]:
    """Sum remarks up, in the order in which each kind comes first; few of a kind stay as they are.

    Args:
        remarks: Texts such as `FILE, line 3: what is wrong`. Those are of one kind that are about one file
            and differ in places and in what they quote.
        shown: Places that are told of each kind.
    """
    kinds: dict[tuple[str, str], list[str]] = {}
    for remark in remarks:
        where, _, what = remark.partition(": ")
        file, comma, _ = where.partition(", ")
        kinds.setdefault((file if comma else "", _QUOTED.sub("", what)), []).append(remark)
    for (file, _), alike in kinds.items():
        if len(alike) <= _SINGLE:
            yield from alike
        else:
            yield _one_line(file, [remark.partition(": ") for remark in alike], shown)


def _one_line(file: str, alike: Sequence[tuple[str, str, str]], shown: int) -> str:
    """Tell remarks of one kind: where each is, and what is wrong with the first."""
    places = [where.removeprefix(f"{file}, ") for where, _, _ in alike]
    counted, _, _ = places[0].partition(" ")
    numbers = [place.removeprefix(f"{counted} ") for place in places]
    numbered = counted in _COUNTED and all(number.isdigit() for number in numbers)
    some = (numbers if numbered else places)[:shown]
    if len(places) > shown:
        some.append(f"and {len(places) - shown:,} more")
    count = count_of(len(places), *((counted, _COUNTED[counted]) if numbered else ("place",)))
    others = len({what for _, _, what in alike}) - 1
    like = f"; {count_of(others, 'other text')} like it" if others else ""
    where = f"{count} ({(', ' if numbered else '; ').join(some)})"
    return f"{f'{file}, ' if file else ''}{where}: {alike[0][2]}{like}"
