"""Plots of a delta-vector study: spectrum, coordinates, layers, and a map of users.

Each is made from the figures of one task, as in metrics.json.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fedperfit.simulation.analyze.spectra import TAUS
from fedperfit.simulation.analyze.vectors import HISTORY, OTHER, RANDOM
from fedperfit.simulation.report.svg import BASE, COLLECTIVE, PERSONAL, Picture, band, legend_below, svg

COLOURS = {HISTORY: PERSONAL, RANDOM: BASE, OTHER: COLLECTIVE}
"""Colour of each kind of text."""
_MARKERS = "osD^vP*X<>"
_RANK_COLOURS = ("#f0a36b", "#d1495b", "#8d5aa8")


def spectrum(about: Mapping[str, Any]) -> Picture:
    """Draw the share of the squared length that the first directions carry, with the controls."""

    def draw(axes: Axes) -> None:
        most = min(len(about["spectrum"][HISTORY]["value"]), 32)
        places = list(range(1, most + 1))
        for kind, curve in about["spectrum"].items():
            points = [
                {name: curve[name][n] for name in ("value", "low", "high")}
                for n in range(min(most, len(curve["value"])))
            ]
            band(axes, places[: len(points)], points, COLOURS[kind], kind)
        unseen = about["held-out-shares"][:most]
        axes.plot(
            places[: len(unseen)],
            unseen,
            "--",
            color=PERSONAL,
            lw=1.3,
            label="history, of users not fitted on",
        )
        for tau in TAUS:
            axes.axhline(tau, color="#9aa0a8", lw=0.8, ls=":")
            axes.annotate(
                f"{tau:g}", (1.01, tau), xycoords=("axes fraction", "data"), fontsize=8, va="center"
            )
        axes.set_xscale("log", base=2)
        ticks = [n for n in (1, 2, 4, 8, 16, 32) if n <= most]
        axes.set_xticks(ticks, [str(n) for n in ticks])
        axes.minorticks_off()
        axes.set_ylim(top=1.02)
        axes.set_xlabel("directions")
        axes.set_ylabel("share of the squared length")
        legend_below(axes, columns=2)

    return svg("Share of the delta-vectors that the first directions carry", draw)


def coordinates(about: Mapping[str, Any]) -> Picture:
    """Draw each user's coordinate on the collective direction, and the means with their intervals."""
    drawn = about["people"]["coordinates"]
    layer = about["layers"][about["middle"]]

    def draw(axes: Axes) -> None:
        scatter = np.random.default_rng(0)
        for place, (kind, values) in enumerate(drawn.items()):
            heights = place + scatter.uniform(-0.2, 0.2, len(values))
            axes.plot(values, heights, "o", color=COLOURS[kind], ms=4.5, alpha=0.45, mec="white", mew=0.5)
            mean = layer[kind]["shift"]
            axes.plot([mean["low"], mean["high"]], [place - 0.36] * 2, color=COLOURS[kind], lw=3, alpha=0.6)
            axes.plot([mean["value"]], [place - 0.36], "D", color=COLOURS[kind], ms=6)
        axes.axvline(0, color="#9aa0a8", lw=1)
        axes.set_yticks(range(len(drawn)), list(drawn))
        axes.set_ylim(len(drawn) - 0.6, -0.6)
        axes.set_xlabel("coordinate on history's first direction (0: as without text)")

    return svg("Coordinates of users against the controls", draw)


def ranks(about: Mapping[str, Any]) -> Picture:
    """Draw rank(tau) of history and of random text by layer."""

    def draw(axes: Axes) -> None:
        places = list(range(len(about["layers"])))
        for tau, colour in zip(TAUS, _RANK_COLOURS, strict=True):
            by_kind = {
                kind: [layer[kind]["ranks"][f"{tau:g}"] for layer in about["layers"]]
                for kind in (HISTORY, RANDOM)
            }
            band(axes, places, by_kind[HISTORY], colour, f"{HISTORY}, {tau:g}")
            axes.plot(
                places, [r["value"] for r in by_kind[RANDOM]], ":", color=colour, label=f"{RANDOM}, {tau:g}"
            )
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        _by_layer(axes, about)
        axes.set_ylabel("directions that carry the share")
        legend_below(axes, columns=3)

    return svg("Rank by layer", draw)


def shifts(about: Mapping[str, Any]) -> Picture:
    """Draw the mean coordinate by layer, in parts of the length of history's delta-vectors there."""

    def draw(axes: Axes) -> None:
        places = list(range(len(about["layers"])))
        for kind, colour in COLOURS.items():
            points = [
                {
                    end: layer[kind]["shift"][end] / layer[HISTORY]["length"]
                    for end in ("value", "low", "high")
                }
                for layer in about["layers"]
            ]
            band(axes, places, points, colour, kind)
        axes.axhline(0, color="#9aa0a8", lw=1)
        _by_layer(axes, about)
        axes.set_ylabel("collective shift / length\nof history's delta-vectors")
        legend_below(axes, columns=3)

    return svg("Collective shift by layer", draw)


def _by_layer(axes: Axes, about: Mapping[str, Any]) -> None:
    depth = len(about["layers"])
    axes.axvspan(about["middle"] - 0.5, about["middle"] + 0.5, color="#8a94a6", alpha=0.15, lw=0, zorder=0)
    axes.set_xticks(range(0, depth, max(1, depth // 10)))
    axes.set_xlabel("decoder layer (shaded: the middle one)")


def people(about: Mapping[str, Any]) -> Picture:
    """Draw users by the first two principal coordinates of their delta-vectors, coloured by preference."""
    drawn = about["people"]

    def draw(axes: Axes) -> None:
        places = np.array(drawn["map"])
        if "words" in drawn:
            x, y = places.T
            points = axes.scatter(x, y, c=drawn["words"], cmap="viridis", s=34, edgecolors="white", lw=0.5)
            plt.colorbar(points, ax=axes, label="words of an item, mean")
        else:
            _groups(axes, places, drawn["labels"])
        axes.set_xlabel("first principal coordinate")
        axes.set_ylabel("second")

    return svg("Map of users", draw, size=(6.4, 4.2))


def _groups(axes: Axes, places: "np.ndarray[Any, Any]", labels: Sequence[str]) -> None:
    """Draw users by label; labels that one user alone prefers share a colour."""
    counts = Counter(labels)
    several = sorted(label for label, count in counts.items() if count > 1)
    palette = colormaps["tab10"].colors  # type: ignore[attr-defined]
    for n, label in enumerate(several):
        members = [place for place, one in enumerate(labels) if one == label]
        colour, marker = palette[n % len(palette)], _MARKERS[n % len(_MARKERS)]
        axes.plot(
            *places[members].T, marker, color=colour, ms=6.5, mec="white", label=f"{label} ({counts[label]})"
        )
    rest = [place for place, one in enumerate(labels) if counts[one] == 1]
    if rest:
        axes.plot(*places[rest].T, "o", color=BASE, ms=4, label=f"others, one user each ({len(rest)})")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
