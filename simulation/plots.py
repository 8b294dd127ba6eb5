"""The report's plots, as SVG text to stand inside its page."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

BASE, COLLECTIVE, DIRECTIONS, PERSONAL, BOUND = "#8a8f98", "#3b6fb6", "#8d6bb0", "#d1495b", "#3a7d44"
COLOURS = {"base": BASE, "collective": COLLECTIVE, "directions": DIRECTIONS, "personal": PERSONAL}
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.edgecolor": "#9aa0a8",
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "fedperfit",
    "legend.frameon": False,
}


def svg(title: str, draw: Callable[[Axes], None], *, size: tuple[float, float] = (5.6, 3.5)) -> str:
    """The picture `draw` makes, scaled to its container, with `title` as its text alternative."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
        plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def stages_plot(summary: Mapping[str, Any]) -> str:
    """Score of each stage with its interval, between the bounds."""
    main = summary["main"]
    rows = [(stage, about["metrics"][main], COLOURS[stage]) for stage, about in summary["stages"].items()]
    bounds = summary.get("bounds", {}).get("targets")

    def draw(axes: Axes) -> None:
        for place, (_, about, colour) in enumerate(rows):
            _dot(axes, about, place, colour)
        axes.set_yticks(range(len(rows)), [_label(stage) for stage, _, _ in rows])
        axes.invert_yaxis()
        axes.margins(y=0.3)
        if bounds:
            bound_line(axes.axvline, bounds["unknown"][main]["value"], "best without knowing the user")
            bound_line(axes.axvline, bounds["bayes"][main]["value"], "Bayes-optimal", dashed=False)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=1, fontsize=9)
        axes.set_xlabel(_metric(summary))

    return svg(f"{_metric(summary)} of base, collective and personal", draw, size=(5.6, 3.0))


def _dot(axes: Axes, about: Mapping[str, float], place: float, colour: str) -> None:
    axes.plot([about["low"], about["high"]], [place, place], color=colour, lw=3, alpha=0.45)
    axes.plot([about["value"]], [place], "o", color=colour, ms=8)


def bound_line(line: Callable[..., Any], value: float, label: str, *, dashed: bool = True) -> None:
    line(value, color=BOUND, lw=1.3, ls="--" if dashed else "-", label=label)


def users_plot(summary: Mapping[str, Any]) -> str:
    """One point per user: collective score against collective + personal."""
    points = [scores for scores in summary["users"].values() if {"collective", "personal"} <= set(scores)]

    def draw(axes: Axes) -> None:
        x = [scores["collective"] for scores in points]
        y = [scores["personal"] for scores in points]
        axes.plot(x, y, "o", color=PERSONAL, alpha=0.55, ms=6, mec="white")
        low, high = min(*x, *y), max(*x, *y)
        axes.plot([low, high], [low, high], color=BASE, lw=1, ls=":")
        axes.set_xlabel(f"collective only, {_metric(summary)}")
        axes.set_ylabel("collective + personal")

    return svg("Each user's score with and without the personal shift", draw, size=(4.6, 3.6))


def history_plot(summary: Mapping[str, Any]) -> str:
    """Score of newcomers by number of history items."""
    points, main = summary["history"], summary["main"]

    def draw(axes: Axes) -> None:
        places = [log_place(point["size"]) for point in points]
        band(axes, places, [point["metrics"][main] for point in points], PERSONAL, "collective + personal")
        if points[0]["size"] == 0:
            axes.axhline(
                points[0]["metrics"][main]["value"], color=COLLECTIVE, lw=1.3, ls=":", label="collective only"
            )
        bounds = summary.get("bounds", {}).get("newcomers")
        if bounds:
            bound_line(axes.axhline, bounds["unknown"][main]["value"], "best without knowing the user")
            bound_line(axes.axhline, bounds["bayes"][main]["value"], "Bayes-optimal", dashed=False)
        axes.set_xticks(places, [str(point["size"]) for point in points])
        axes.set_xlabel("history items of a new user")
        axes.set_ylabel(_metric(summary))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, fontsize=8)

    return svg("Cold start by history length", draw)


def log_place(size: int) -> float:
    return 0.0 if size == 0 else 1.0 + math.log2(size)


def collective_plot(summary: Mapping[str, Any]) -> str:
    """Score of newcomers by number of clients that trained the collective shift."""
    points, main = summary["collective"], summary["main"]

    def draw(axes: Axes) -> None:
        sizes = [point["size"] for point in points]
        band(axes, sizes, [point["metrics"][main] for point in points], COLLECTIVE, "collective only")
        if all("personal" in point for point in points):
            band(
                axes, sizes, [point["personal"][main] for point in points], PERSONAL, "collective + personal"
            )
        axes.set_xticks(sizes)
        axes.set_xlabel("clients that trained the collective shift")
        axes.set_ylabel(_metric(summary))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, fontsize=8)

    return svg("Cold start by number of collective clients", draw)


def band(
    axes: Axes, x: Sequence[float], values: Sequence[Mapping[str, float]], colour: str, label: str
) -> None:
    axes.fill_between(
        x, [v["low"] for v in values], [v["high"] for v in values], color=colour, alpha=0.15, lw=0
    )
    axes.plot(x, [v["value"] for v in values], "o-", color=colour, ms=5, label=label)


def loss_plot(summary: Mapping[str, Any]) -> str:
    """Training loss of the collective shift per round."""
    rounds = [report for report in summary["rounds"] if report["loss"] is not None]

    def draw(axes: Axes) -> None:
        axes.plot([r["round"] for r in rounds], [r["loss"] for r in rounds], "o-", color=COLLECTIVE)
        axes.set_xticks([r["round"] for r in rounds])
        axes.set_xlabel("round")
        axes.set_ylabel("loss per target token (nats)")

    return svg("Training loss per round", draw, size=(4.6, 3.0))


def bytes_plot(summary: Mapping[str, Any]) -> str:
    """Bytes per client, round and direction, on a log scale."""
    about = summary["communication"]
    rows = [("collective shift", about["payload"], COLLECTIVE)]
    rows += [(name, size, BASE) for name, size in about["alternatives"].items()]

    def draw(axes: Axes) -> None:
        axes.barh([name for name, _, _ in rows], [size for _, size, _ in rows], color=[c for _, _, c in rows])
        axes.set_xscale("log")
        axes.invert_yaxis()
        axes.set_xlabel("bytes per client, round and direction")

    return svg("Bytes per client and round beside LoRA and the full model", draw, size=(5.6, 2.3))


def _label(stage: str) -> str:
    beside = {"directions": "collective\n+ directions", "personal": "collective\n+ personal"}
    return {"base": "base model", "collective": "collective", **beside}[stage]


def _metric(summary: Mapping[str, Any]) -> str:
    return str(summary["main"]).upper() if summary["lower-is-better"] else str(summary["main"])
