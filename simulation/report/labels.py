"""Names of points in a plot, moved apart until each can be read."""

from collections.abc import Sequence
from itertools import count

from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy

_CHARACTER = 6
"""Width of a character of a name, in pixels."""
_POINT = 5
"""Half the width of a point, in pixels."""


def labelled(axes: Axes, points: Sequence[tuple[float, float, str, str]], *, right: bool = False) -> None:
    """Write names beside their points or at the right edge, apart from one another and from other points.

    Args:
        axes: Axes with their final limits.
        points: Place, height, name and colour of each.
        right: At the right edge.
    """
    beside = offset_copy(axes.transData, fig=axes.get_figure(root=True), x=6, units="points")
    low, high = axes.get_ylim()
    apart = (high - low) * 0.034
    starts = [axes.transData.transform((x, y))[0] for x, y, _, _ in points]
    drawn = [(at - _POINT, at + _POINT, point[1]) for at, point in zip(starts, points, strict=True)]
    placed: list[tuple[float, float, float]] = []
    for at, (x, y, name, colour) in sorted(zip(starts, points, strict=True), key=lambda each: each[1][1]):
        begin = at + 2 * _POINT
        end = begin + _CHARACTER * len(name)
        taken = placed if right else drawn + placed
        near = [height for left, until, height in taken if right or (left < end and begin < until)]
        tries = (y + way * step * apart / 4 for step in count() for way in (1, -1))
        spot = next(one for one in tries if all(abs(one - other) >= apart for other in near))
        placed.append((begin, end, spot))
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
