"""Figures that trackers get of an event: numbers of a closed list of names, and nothing else.

What an event gains later is not sent before it is listed here, so that no name of a person and no text
leaves with it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Shape:
    """Where an event has its series, its step and its figures."""

    names: Sequence[str]
    """Keys of the figures."""
    series: str = ""
    """Key of the series; empty where it is the event's name."""
    step: str = ""
    """Key of the step; empty where the event comes once."""


_SHAPES: Mapping[str, _Shape] = {
    "round": _Shape(("loss", "admitted", "dropped", "down", "up"), series="phase", step="round"),
    "result": _Shape(("clients",), series="phase"),
    "work": _Shape(("total", "seconds"), step="done"),
    "trial": _Shape(("learning-rate", "epochs", "score", "without"), step="done"),
    "memory": _Shape(("peak", "kept", "items")),
}
"""Events with figures, by name."""


def figures_of(event: Mapping[str, Any]) -> tuple[str, int, dict[str, float]] | None:
    """Return series, step and figures of an event; None for one without any."""
    kind = event["event"]
    shape = _SHAPES.get(kind)
    if shape is None:
        return None
    values = {name: float(event[name]) for name in shape.names if is_figure(event.get(name))}
    step = event[shape.step] if shape.step else 0
    return str(event[shape.series] if shape.series else kind), int(step), values


def is_figure(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def flat_figures(about: Any, name: str = "") -> dict[str, float]:
    """Return all numbers of nested figures, by the path to each.

    Args:
        about: A number, a mapping of figures by name, or a sequence of points, each with its `size`, or of
            rows, each with its `method`; what is neither is left out.
        name: Path to `about`.
    """
    if is_figure(about):
        return {name: float(about)}
    parts: list[tuple[str, Any]] = []
    if isinstance(about, Mapping):
        parts = [(str(key), value) for key, value in about.items() if key != "size"]
    elif isinstance(about, list):
        keyed = [value for value in about if isinstance(value, Mapping)]
        parts = [(str(value.get("method", value.get("size", n))), value) for n, value in enumerate(keyed)]
    found: dict[str, float] = {}
    for key, value in parts:
        found |= flat_figures(value, f"{name}/{key}" if name else key)
    return found
