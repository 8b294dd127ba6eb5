"""Names of points in a plot, moved apart until each can be read."""

from collections.abc import Sequence
from itertools import count

from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy

_LABEL = 90
"""Width of a name in pixels."""


def labelled(axes: Axes, points: Sequence[tuple[float, float, str, str]], *, right: bool = False) -> None:
    """Write names beside their points or at the right edge, apart from one another.

    Args:
        axes: Axes with their final limits.
        points: Place, height, name and colour of each.
        right: At the right edge.
    """
    beside = offset_copy(axes.transData, fig=axes.get_figure(root=True), x=6, units="points")
    low, high = axes.get_ylim()
    apart = (high - low) * 0.034
    placed: list[tuple[float, float]] = []
    for x, y, name, colour in sorted(points, key=lambda point: point[1]):
        at = axes.transData.transform((x, y))[0]
        near = [other for place, other in placed if right or abs(place - at) < _LABEL]
        tries = (y + way * step * apart / 4 for step in count() for way in (1, -1))
        spot = next(one for one in tries if all(abs(one - other) >= apart for other in near))
        placed.append((at, spot))
        moved = right or abs(spot - y) > apart / 2
        tie = {"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.5} if moved else None
        axes.annotate(
            name,
            (x, y),
            xytext=(1.03 if right else x, spot),
            textcoords=("axes fraction", "data") if right else beside,
            fontsize=7.5,
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops=tie,
        )
