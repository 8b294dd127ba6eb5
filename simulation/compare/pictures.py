"""Plots of a comparison: scores with intervals, their costs, and how they grow."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from fedperfit.simulation.report.labels import labelled
from fedperfit.simulation.report.svg import Picture, bound_line, legend_below, log_bottom, log_place, svg

COLOURS = {
    "floor": "#8a8f98",
    "prompt": "#b8862b",
    "adapter": "#3b6fb6",
    "steering": "#7b5ea7",
    "shift": "#d1495b",
    "other": "#2a8f86",
}
"""Colour of each family of methods."""
_MARKERS = "osD^vP*X<>h"
_ZERO = 0.3
"""Place of zero on a logarithmic axis, as a part of the smallest value."""


def scores(about: Mapping[str, Any]) -> Picture:
    """Draw every row's score with its interval, between the world's bounds."""
    rows, main = about["rows"], about["main"]

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            value = row["metrics"][main]
            colour = COLOURS[row["family"]]
            axes.plot([value["low"], value["high"]], [place, place], color=colour, lw=3, alpha=0.45)
            axes.plot([value["value"]], [place], "o", color=colour, ms=6)
        axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)  # the first on top, and none on an edge
        for name, label in (("unknown", "best without knowing the user"), ("bayes", "Bayes-optimal")):
            if "bounds" in about:
                value = about["bounds"][name][main]["value"]
                bound_line(axes.axvline, value, label, dashed=name == "unknown")
        if "bounds" in about:
            legend_below(axes, columns=2)
        axes.set_xlabel(_metric(about))

    return svg(f"{_metric(about)} of every method", draw, size=(7.5, 0.8 + 0.27 * len(rows)))


def costs(about: Mapping[str, Any], cost: str) -> Picture:
    """Draw scores against what a method costs per user.

    Args:
        about: Figures of one task, as in metrics.json.
        cost: `bytes` or `seconds`.
    """
    main = about["main"]
    points = [(row, _cost(row, cost), row["metrics"][main]) for row in about["rows"]]
    least = min((x for _, x, _ in points if x > 0), default=1.0)

    def draw(axes: Axes) -> None:
        places = [max(x, least * _ZERO) for _, x, _ in points]
        for (row, _, value), x in zip(points, places, strict=True):
            colour = COLOURS[row["family"]]
            axes.plot([x, x], [value["low"], value["high"]], color=colour, lw=1.2, alpha=0.35)
            axes.plot([x], [value["value"]], "o", color=colour, ms=6)
        log_bottom(axes)
        axes.margins(x=0.18)
        labelled(
            axes,
            [
                (x, v["value"], row["method"], COLOURS[row["family"]])
                for (row, _, v), x in zip(points, places, strict=True)
            ],
        )
        if any(x == 0 for _, x, _ in points):
            axes.axvline(least * (_ZERO**0.5), color="#c9ced6", lw=1)
            axes.annotate("none", (least * _ZERO, 0.01), xycoords=("data", "axes fraction"), fontsize=8)
        axes.set_xlabel(_COSTS[cost])
        axes.set_ylabel(_metric(about))

    return svg(f"{_metric(about)} against {_COSTS[cost]}", draw, size=(7.5, 5.2))


_COSTS = {
    "bytes": "bytes per user: collective part received and personal numbers kept, fp32",
    "seconds": "seconds to fit one user",
}


def _cost(row: Mapping[str, Any], cost: str) -> float:
    if cost == "bytes":
        return float(row["bytes-down"] + 4 * row["parameters"])
    seconds = float(row["fit-seconds"])
    return seconds if seconds > 1e-3 else 0.0


def curves(about: Mapping[str, Any], kind: str, families: Mapping[str, str]) -> Picture:
    """Draw every method's score by history items, or by number of other users.

    Args:
        about: Figures of one task, as in metrics.json.
        kind: `history` or `collective`.
        families: Family of each method by name.
    """
    drawn = about[kind]

    def draw(axes: Axes) -> None:
        ends: list[tuple[float, float, str, str]] = []
        ticks: dict[float, str] = {}
        counts: dict[str, int] = {}
        for name, points in drawn.items():
            colour = COLOURS[families[name]]
            marker = _MARKERS[counts.setdefault(families[name], 0) % len(_MARKERS)]
            counts[families[name]] += 1
            x = [log_place(point["size"]) for point in points]
            y = [point["metrics"][about["main"]]["value"] for point in points]
            axes.plot(x, y, marker=marker, color=colour, ms=4.5, lw=1.3, alpha=0.85)
            ends.append((x[-1], y[-1], name, colour))
            ticks |= {place: str(point["size"]) for place, point in zip(x, points, strict=True)}
        axes.set_xticks([*ticks], [*ticks.values()])
        axes.margins(x=0.02)
        labelled(axes, ends, right=True)
        what = "history items of the user" if kind == "history" else "other users the collective part saw"
        axes.set_xlabel(what)
        axes.set_ylabel(_metric(about))

    return svg(f"{_metric(about)} by {kind}", draw, size=(8.5, 6))


def _metric(about: Mapping[str, Any]) -> str:
    return f"{about['main'].upper()} (lower is better)" if about["lower-is-better"] else str(about["main"])
