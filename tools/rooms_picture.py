"""Draws docs/images/rooms.svg, the packages and their rooms: python -m tools.rooms_picture."""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
FLOORS = (("simulation",), ("cloud", "edge"), ("protocol",))
"""Packages from top to bottom; those of a floor never import each other."""
COLOURS = {"simulation": "#8d6bb0", "cloud": "#3b6fb6", "edge": "#d1495b", "protocol": "#3a7d44"}
_WIDTH, _GAP, _PAD = 900, 24, 14
_ROOM, _LINE, _TITLE, _BETWEEN = 124, 32, 34, 46
_IMPORT = re.compile(r"^\s*(?:from|import) fedperfit\.(\w+)", re.M)


def rooms(package: str) -> list[str]:
    """The folders of a package that hold Python files."""
    folders = sorted(path for path in (ROOT / package).iterdir() if path.is_dir())
    return [folder.name for folder in folders if any(folder.glob("*.py"))]


def imported_packages(package: str) -> set[str]:
    """The other packages that any file of this one imports."""
    files = (ROOT / package).rglob("*.py")
    found = {name for file in files for name in _IMPORT.findall(file.read_text(encoding="utf-8"))}
    return (found & set(COLOURS)) - {package}


def picture() -> str:
    """The picture as SVG text."""
    places = dict(_places())
    height = max(y + tall for _, y, _, tall in places.values()) + 4
    arrows = "".join(_arrow(places[name], places[other]) for name in places for other in _below(name))
    boxes = "".join(_package(name, *place) for name, place in places.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'aria-label="The packages of fedperfit and their rooms" '
        'font-family="system-ui, sans-serif" font-size="14">\n'
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#6b7280"/></marker></defs>\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n{arrows}{boxes}</svg>\n'
    )


def _below(package: str) -> list[str]:
    """The packages on the next floor that this one imports: arrows that pass a floor are left out."""
    floor = next(n for n, names in enumerate(FLOORS) if package in names)
    lower = FLOORS[floor + 1] if floor + 1 < len(FLOORS) else ()
    return sorted(imported_packages(package) & set(lower))


def _places() -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Left, top, width and height of each package."""
    top = 2
    for floor in FLOORS:
        width = (_WIDTH - 4 - _GAP * (len(floor) - 1)) // len(floor)
        tall = max(_TITLE + _LINE * -(-len(rooms(name)) // _columns(width)) + _PAD for name in floor)
        for number, name in enumerate(floor):
            yield name, (2 + number * (width + _GAP), top, width, tall)
        top += tall + _BETWEEN


def _columns(width: int) -> int:
    return (width - _PAD) // (_ROOM + 8)


def _package(name: str, left: int, top: int, width: int, tall: int) -> str:
    colour = COLOURS[name]
    parts = [
        f'<rect x="{left}" y="{top}" width="{width}" height="{tall}" rx="8" fill="{colour}" '
        f'fill-opacity=".08" stroke="{colour}"/>',
        f'<text x="{left + _PAD}" y="{top + 23}" font-weight="600" fill="{colour}">{name}/</text>',
    ]
    for number, room in enumerate(rooms(name)):
        row, column = divmod(number, _columns(width))
        x, y = left + _PAD + column * (_ROOM + 8), top + _TITLE + row * _LINE
        parts.append(
            f'<rect x="{x}" y="{y}" width="{_ROOM}" height="24" rx="4" fill="#ffffff" stroke="{colour}" '
            f'stroke-opacity=".5"/><text x="{x + _ROOM // 2}" y="{y + 17}" text-anchor="middle" '
            f'fill="#1f2937">{escape(room)}</text>'
        )
    return "\n".join(parts) + "\n"


def _arrow(above: tuple[int, int, int, int], below: tuple[int, int, int, int]) -> str:
    left, right = max(above[0], below[0]), min(above[0] + above[2], below[0] + below[2])
    x, start, end = (left + right) // 2, above[1] + above[3], below[1]
    return (
        f'<line x1="{x}" y1="{start + 4}" x2="{x}" y2="{end - 4}" stroke="#6b7280" stroke-width="2" '
        'marker-end="url(#head)"/>\n'
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
