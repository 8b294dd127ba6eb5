"""Plots of a study, made from the figures of one task as in results.json."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from fedperfit.simulation.communication.row import Family
from fedperfit.simulation.report.labels import labelled
from fedperfit.simulation.report.svg import Picture, legend_below, log_bottom, svg

_COLOURS = {
    Family.WHOLE: "#8d6bb0",
    Family.BASIS: "#d1495b",
    Family.ADAPTER: "#3b6fb6",
    Family.PERSONAL: "#2a8f86",
}
_AXES = {
    "payload": "bytes of an update: payload",
    "message": "bytes of an update: whole message as Flower serialises it",
}


def by_bytes(about: Mapping[str, Any], measure: str, *, personal: bool) -> Picture:
    """Draw scores against the bytes of an update, on a logarithmic axis.

    Args:
        about: Figures of one task.
        measure: `payload` or `message`.
        personal: For the rows with a personal part in place of all others.
    """
    main = about["main"]
    rows = {
        name: row
        for name, row in about["rows"].items()
        if row["traffic"]["updates"] and (row["family"] == Family.PERSONAL) == personal
    }
    better = "lower is better" if about["lower-is-better"] else "higher is better"

    def draw(axes: Axes) -> None:
        points = []
        told = set()
        for name, row in rows.items():
            x, value, family = row["traffic"]["update"][measure], row["metrics"][main], Family(row["family"])
            colour, label = _COLOURS[family], None if family in told else family.value
            told.add(family)
            axes.plot([x, x], [value["low"], value["high"]], color=colour, lw=1.2, alpha=0.3)
            axes.plot([x], [value["value"]], "o", color=colour, ms=6, label=label)
            points.append((x, value["value"], name, colour))
        if not personal and "base" in about["rows"]:
            height = about["rows"]["base"]["metrics"][main]["value"]
            axes.axhline(height, color="#8a8f98", lw=1.2, ls="--", label="base model alone")
        log_bottom(axes)
        axes.margins(x=0.2, y=0.08)
        labelled(axes, points)
        axes.set_xlabel(_AXES[measure])
        axes.set_ylabel(f"{main} ({better})")
        legend_below(axes, columns=4)

    return svg(f"{main} against {_AXES[measure]}", draw, size=(8.5, 4.0 if personal else 6.2))
