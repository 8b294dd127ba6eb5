"""Plots of an audit, each made from the figures of one attack as in result.json."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from fedperfit.simulation.audit.attack import Role
from fedperfit.simulation.report.svg import BASE, BOUND, PERSONAL, Picture, bound_line, legend_below, svg

_COLOURS = {Role.ATTACK: PERSONAL, Role.POSITIVE: BOUND, Role.NULL: BASE}


def areas(title: str, conditions: Mapping[str, Mapping[str, Any]]) -> Picture:
    """Draw the area under the curve of each condition with its interval, and where guessing lies.

    Args:
        title: Title of the attack.
        conditions: Figures by condition.
    """

    def draw(axes: Axes) -> None:
        told = set()
        for place, about in enumerate(conditions.values()):
            role = Role(about["role"])
            label = None if role in told else str(role)
            told.add(role)
            auc, colour = about["auc"], _COLOURS[role]
            axes.plot([auc["low"], auc["high"]], [place, place], color=colour, lw=3, alpha=0.45)
            axes.plot([auc["value"]], [place], "o", color=colour, ms=7, label=label)
        bound_line(axes.axvline, 0.5, "guessing")
        axes.set_yticks(range(len(conditions)), list(conditions))
        axes.invert_yaxis()
        axes.margins(y=0.1)
        axes.set_xlim(right=1.02)
        axes.set_xlabel("area under the curve: .5 guesses, 1 knows")
        legend_below(axes, columns=4)

    return svg(title, draw, size=(6.4, 1.3 + 0.32 * len(conditions)))
