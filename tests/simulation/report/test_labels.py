"""Names in a plot cover neither one another nor other points."""

from itertools import pairwise

from matplotlib.axes import Axes

from fedperfit.simulation.report.labels import labelled
from fedperfit.simulation.report.svg import svg

SAME = [(100.0, 0.5, name, "black") for name in ("ada", "bob", "eve")]
BESIDE = [(0.0, 0.5, "a long name", "black"), (40.0, 0.5, "b", "black"), (1000.0, 0.0, "c", "black")]


def heights(points: list[tuple[float, float, str, str]], *, right: bool = False) -> dict[str, float]:
    """Height of each name, on axes from 0 to 1 and some 500 pixels wide."""
    found: dict[str, float] = {}

    def draw(axes: Axes) -> None:
        axes.set_xlim(0, 1000)
        axes.set_ylim(0, 1)
        labelled(axes, points, right=right)
        found.update({each.get_text(): each.xyann[1] for each in axes.texts})

    svg("names", draw)
    return found


def test_names_of_points_at_one_place_are_moved_apart() -> None:
    for right in (False, True):
        placed = sorted(heights(SAME, right=right).values())
        assert min(b - a for a, b in pairwise(placed)) >= 0.03


def test_a_name_covers_no_point_to_its_right() -> None:
    placed = heights(BESIDE)
    assert abs(placed["a long name"] - 0.5) >= 0.03
    assert placed["b"] == 0.5
    far = heights([BESIDE[0], (500.0, *BESIDE[1][1:]), BESIDE[2]])
    assert far["a long name"] == 0.5
