"""Two files of benchmark measurements side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.benchmark.record import read_record


def compare(first: Path, second: Path) -> Table:
    """Tabulate every figure that two files share, and the ratio of the second to the first.

    Args:
        first: File of the measurements to compare with.
        second: File of the measurements that are compared.

    Returns:
        A row per figure, under the origin of either file.

    Raises:
        InputError: A file holds no measurements, or the two share none.
    """
    paths = (first, second)
    contents = [read_record(path) for path in paths]
    before, after = (content["measurements"] for content in contents)
    origins = [f"{path}: {_origin(content)}" for path, content in zip(paths, contents, strict=True)]
    printed = Table(title=Text("\n".join(origins)))
    for name in ("measurement", "figure", "first", "second", "ratio"):
        printed.add_column(
            name, justify="left" if name in ("measurement", "figure") else "right", overflow="fold"
        )
    for name in before:
        for figure, ratio in ratios(before[name], after.get(name, {})).items():
            old, new = (f"{measured[name][figure]:.4g}" for measured in (before, after))
            printed.add_row(name, figure, old, new, f"{ratio:.2f}x")
    if not printed.row_count:
        raise InputError(f"{first} and {second} have no measurement in common")
    return printed


def ratios(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    """Divide each figure of one measurement by that of another, where both have it and it is positive.

    Args:
        before: Figures to divide by.
        after: Figures to be divided.
    """
    return {
        name: after[name] / value
        for name, value in before.items()
        if isinstance(value, int | float) and value > 0 and isinstance(after.get(name), int | float)
    }


def _origin(content: Mapping[str, Any]) -> str:
    try:
        origin = content["origin"]
        machine = origin["machine"]
        head, plus, changes = origin["commit"].partition("+")
        parts = (
            f"commit {head[:12] or 'unknown'}{plus}{changes}",
            f"{machine['processor']}, {machine['cores']} cores",
            f"torch {origin['versions']['torch']}",
            origin["note"],
        )
    except (AttributeError, KeyError, TypeError):
        return "origin not recorded"
    return ", ".join(part for part in parts if part)
