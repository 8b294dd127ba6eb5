"""Plots of a run's report, each made from the run's summary as in metrics.json."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes

from fedperfit.simulation.report.svg import (
    BASE,
    BOUND,
    COLLECTIVE,
    COLOURS,
    DIRECTIONS,
    PERSONAL,
    Picture,
    band,
    bound_line,
    legend_below,
    log_bottom,
    log_place,
    svg,
)

_RUN_COLOURS = (COLLECTIVE, PERSONAL, BOUND, DIRECTIONS, BASE)
"""Colours of runs in one plot, in turn."""


def stages_plot(summary: Mapping[str, Any]) -> Picture:
    """Draw the score of each stage with its interval, between the bounds."""
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
            legend_below(axes, columns=1)
        axes.set_xlabel(_metric(summary))

    return svg(f"{_metric(summary)} of base, collective and personal", draw, size=(5.6, 3.0))


def _dot(axes: Axes, about: Mapping[str, float], place: float, colour: str) -> None:
    axes.plot([about["low"], about["high"]], [place, place], color=colour, lw=3, alpha=0.45)
    axes.plot([about["value"]], [place], "o", color=colour, ms=8)


def users_plot(summary: Mapping[str, Any]) -> Picture:
    """Draw one point per user: collective score against collective + personal."""
    points = [scores for scores in summary["users"].values() if {"collective", "personal"} <= set(scores)]

    def draw(axes: Axes) -> None:
        x = [scores["collective"] for scores in points]
        y = [scores["personal"] for scores in points]
        axes.plot(x, y, "o", color=PERSONAL, alpha=0.55, ms=6, mec="white")
        low, high = min(*x, *y), max(*x, *y)
        axes.plot([low, high], [low, high], color=BASE, lw=1, ls=":")
        axes.set_xlabel(f"collective only, {_metric(summary)}")
        axes.set_ylabel("collective + personal")

    return svg("Each user's score with and without the personal shift", draw, size=(5.6, 3.5))


def history_plot(summary: Mapping[str, Any]) -> Picture:
    """Draw the score of newcomers by number of history items."""
    points, main = summary["history"], summary["main"]

    def draw(axes: Axes) -> None:
        places = [log_place(point["size"]) for point in points]
        band(axes, places, [point["metrics"][main] for point in points], PERSONAL, "collective + personal")
        if points[0]["size"] == 0:
            axes.axhline(
                points[0]["metrics"][main]["value"], color=COLLECTIVE, lw=1.3, ls=":", label="collective only"
            )
        limited = [point for point in points if "limit" in point]
        if limited:
            axes.plot(
                [log_place(point["size"]) for point in limited],
                [point["limit"][main]["value"] for point in limited],
                color=BOUND,
                lw=1.3,
                ls="-.",
                label="best with these items (Bayes)",
            )
        bounds = summary.get("bounds", {}).get("newcomers")
        if bounds:
            bound_line(axes.axhline, bounds["unknown"][main]["value"], "best without knowing the user")
            bound_line(axes.axhline, bounds["bayes"][main]["value"], "Bayes-optimal", dashed=False)
        axes.set_xticks(places, [str(point["size"]) for point in points])
        axes.set_xlabel("history items of a new user")
        axes.set_ylabel(_metric(summary))
        legend_below(axes, columns=2)

    return svg("Cold start by history length", draw)


def collective_plot(summary: Mapping[str, Any]) -> Picture:
    """Draw the score of newcomers by number of clients that trained the collective shift."""
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
        legend_below(axes, columns=2)

    return svg("Cold start by number of collective clients", draw)


def loss_plot(summary: Mapping[str, Any]) -> Picture:
    """Draw the training loss of the collective shift per round."""
    rounds = [report for report in summary["rounds"] if report["loss"] is not None]

    def draw(axes: Axes) -> None:
        axes.plot([r["round"] for r in rounds], [r["loss"] for r in rounds], "o-", color=COLLECTIVE)
        axes.set_xticks([r["round"] for r in rounds])
        axes.set_xlabel("round")
        axes.set_ylabel("loss per target token (nats)")

    return svg("Training loss per round", draw, size=(5.6, 3.5))


def time_plot(summary: Mapping[str, Any]) -> Picture:
    """Draw the score of the collective shift over simulated time."""
    return times_plot({"collective shift": summary})


def times_plot(runs: Mapping[str, Mapping[str, Any]]) -> Picture:
    """Draw the scores of collective shifts over simulated time.

    Args:
        runs: Summaries of runs of one task, by what the legend calls them.
    """
    metric = _metric(next(iter(runs.values())))

    def draw(axes: Axes) -> None:
        for (name, summary), colour in zip(runs.items(), cycle(_RUN_COLOURS), strict=False):
            points, main = summary["time"], summary["main"]
            seconds = [point["seconds"] for point in points]
            band(axes, seconds, [point["metrics"][main] for point in points], colour, name)
        axes.set_xlabel("simulated seconds")
        axes.set_ylabel(metric)
        legend_below(axes, columns=1)

    return svg(f"{metric} over simulated time", draw)


def bytes_plot(summary: Mapping[str, Any]) -> Picture:
    """Draw bytes per client, round and direction, on a log scale; in a basis those of an update."""
    about = summary["communication"]
    up = about["payload-up"]
    alike = up == about["payload-down"]
    rows = [("collective shift" if alike else "update", up, COLLECTIVE)]
    rows += [(name, size, BASE) for name, size in about["alternatives"].items()]

    def draw(axes: Axes) -> None:
        axes.barh([name for name, _, _ in rows], [size for _, size, _ in rows], color=[c for _, _, c in rows])
        log_bottom(axes)
        axes.tick_params(axis="x", labelsize="x-small")  # from 100 to 10,000,000 in a basis
        axes.invert_yaxis()
        axes.set_xlabel(f"bytes per client{', round and direction' if alike else ' and round, up'}")

    return svg("Bytes per client and round beside LoRA and the full model", draw, size=(5.6, 2.3))


def _label(stage: str) -> str:
    beside = {"directions": "collective\n+ directions", "personal": "collective\n+ personal"}
    return {"base": "base model", "collective": "collective", **beside}[stage]


def _metric(summary: Mapping[str, Any]) -> str:
    return str(summary["main"]).upper() if summary["lower-is-better"] else str(summary["main"])
