"""Plots as SVG text, to be put inside a page."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

BASE, COLLECTIVE, DIRECTIONS, PERSONAL, BOUND = "#8a8f98", "#3b6fb6", "#8d6bb0", "#d1495b", "#3a7d44"
"""Colours of the stages and of the world's bounds."""
COLOURS = {"base": BASE, "collective": COLLECTIVE, "directions": DIRECTIONS, "personal": PERSONAL}
"""Colour of each stage by name."""
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#8a94a6",
    "grid.alpha": 0.25,
    "axes.edgecolor": "#9aa0a8",
    "xtick.color": "#9aa0a8",
    "ytick.color": "#9aa0a8",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "text.parse_math": False,  # labels may be a user's own words
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "fedperfit",
    "legend.frameon": False,
}


class Picture(Markup):
    """A plot as SVG text, which can be drawn as a PNG file too."""

    _draw: Callable[[Axes], None]
    _size: tuple[float, float]

    @classmethod
    def of(cls, text: Markup, draw: Callable[[Axes], None], size: tuple[float, float]) -> "Picture":
        """Return the picture of an SVG text.

        Args:
            text: What `draw` drew.
            draw: Draws on the axes it is given.
            size: Width and height in inches.
        """
        picture = cls(text)
        picture._draw, picture._size = draw, size
        return picture

    def png(self) -> bytes:
        """Draw it again, as a PNG file on white."""
        with plt.rc_context(_STYLE):
            figure, axes = plt.subplots(figsize=self._size, layout="constrained")
            self._draw(axes)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", metadata={"Software": None})
            plt.close(figure)
        return buffer.getvalue()


def svg(title: str, draw: Callable[[Axes], None], *, size: tuple[float, float] = (5.6, 3.5)) -> Picture:
    """Return the picture that `draw` makes, which scales to its container.

    Args:
        title: Text alternative of the picture.
        draw: Draws on the axes it is given.
        size: Width and height in inches, which set the proportions and the size of the text.
    """
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
        plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") + len("<svg") :]
    text = re.sub(r'^([^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'^([^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # Matplotlib has escaped its labels: the one place where text is taken for markup.
    whole = Markup('<svg role="img" aria-label="{}"').format(title) + Markup(text)
    return Picture.of(whole, draw, size)


def on_white(picture: Picture) -> str:
    """Return a picture as the content of an SVG file, on white so that it is read on dark pages too."""
    text = str(picture)  # as Markup it would escape what is added
    opening = text.index(">", text.index("<svg")) + 1
    return text[:opening] + '<rect width="100%" height="100%" fill="#ffffff"/>' + text[opening:]


def legend_below(axes: Axes, *, columns: int) -> None:
    """Put the legend under the picture, clear of the axis label."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, fontsize=8.5)


def log_bottom(axes: Axes) -> None:
    """Make the bottom axis logarithmic, with its numbers written out."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_WrittenOut())
    axes.xaxis.set_minor_formatter(_WrittenOut())


class _WrittenOut(LogFormatter):
    """Labels the ticks that matplotlib would, with 10,000 instead of a power that needs mathtext."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:,.12g}" if super().__call__(x, pos) else ""


def bound_line(line: Callable[..., Any], value: float, label: str, *, dashed: bool = True) -> None:
    """Draw a bound as a line across the axes.

    Args:
        line: `axvline` or `axhline` of the axes.
        value: Place of the line, in data units.
        label: Name in the legend.
        dashed: Dashed instead of solid.
    """
    line(value, color=BOUND, lw=1.3, ls="--" if dashed else "-", label=label)


def log_place(size: int) -> float:
    """Return the place of a number on an axis where doubling it is one step, and 0 is at 0."""
    return 0.0 if size == 0 else 1.0 + math.log2(size)


def band(
    axes: Axes, x: Sequence[float], values: Sequence[Mapping[str, float]], colour: str, label: str
) -> None:
    """Draw a curve with its interval as a band.

    Args:
        axes: Axes to draw on.
        x: Place of each point.
        values: Figures `value`, `low` and `high` of each point.
        colour: Colour of curve and band.
        label: Name in the legend.
    """
    axes.fill_between(
        x, [v["low"] for v in values], [v["high"] for v in values], color=colour, alpha=0.15, lw=0
    )
    axes.plot(x, [v["value"] for v in values], "o-", color=colour, ms=5, label=label)
