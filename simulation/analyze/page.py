"""A delta-vector study's report.html, and what it ends with on a terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table as TerminalTable

from fedperfit.protocol.system.errors import count_of
from fedperfit.protocol.system.files import read_json, write_atomic
from fedperfit.simulation.analyze.pictures import coordinates, people, ranks, shifts, spectrum
from fedperfit.simulation.analyze.settings import AnalyzeSettings
from fedperfit.simulation.analyze.spectra import TAUS
from fedperfit.simulation.analyze.vectors import HISTORY, OTHER, RANDOM, TEXTS
from fedperfit.simulation.report.bootstrap import FEWEST
from fedperfit.simulation.report.html import Figure, Noted, Row, Table, render, shared_pictures
from fedperfit.simulation.report.svg import Picture

REPORT, METRICS = "report.html", "metrics.json"
"""Names of the page and of the file with its figures."""


def write_page(folder: Path, summary: Mapping[str, Any], settings: AnalyzeSettings) -> None:
    """Write `report.html` of a study's folder."""
    html = render(
        "analyze.html",
        title="fedperfit analyze",
        base_model=settings.base_model,
        data=settings.data,
        overview=_overview(summary),
        tasks=[_task(name, about) for name, about in summary["tasks"].items()],
        settings={
            key: ", ".join(value) if isinstance(value, list) else value
            for key, value in settings.to_flat().items()
        },
    )
    write_atomic(folder / REPORT, html.encode())


def _overview(summary: Mapping[str, Any]) -> Table:
    rows = []
    for name, about in summary["tasks"].items():
        few, shift = about["findings"]["few-directions"], about["findings"]["collective-shift"]
        ranks_of = few["ranks"]
        cells: list[str | Noted] = [
            name,
            Noted(few["verdict"], f"{_rank(ranks_of['0.8'])}, {_rank(ranks_of['0.9'])}"),
            *(Noted(one["verdict"], _signed(one["difference"])) for one in (shift, shift[OTHER])),
        ]
        rows.append(Row(cells))
    head = [
        "at the middle layer",
        "few directions carry 80 % and 90 %",
        "collective coordinate above random text's",
        "above another user's",
    ]
    return Table(head, rows)


def pictures(folder: Path) -> dict[str, Picture]:
    """Return the plots of a finished study, by task and title, without those of single users."""
    tasks = read_json(folder / METRICS)["tasks"]
    return {
        title: picture
        for name, about in tasks.items()
        for title, picture in shared_pictures(_figures(about), f"{name} ").items()
    }


def _task(name: str, about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "conclusions": conclusions(about),
        "texts": _texts(about),
        **{key: about[key] for key in ("users", "queries", "middle")},
        "left_out": about["left-out"],
        "tokens": f"{about['tokens']:.0f}",
        "hidden_size": about["hidden-size"],
        "depth": len(about["layers"]),
        "figures": _figures(about),
        "sweep": _sweep(about),
    }


def _figures(about: Mapping[str, Any]) -> list[Figure]:
    return [
        Figure(
            "Spectrum",
            spectrum(about),
            "Middle layer. The dashed line is what directions of half of the users carry of the others: "
            "where it stays below, directions are single users' own.",
        ),
        Figure(
            "Coordinates",
            coordinates(about),
            "Middle layer. Dots are users, diamonds means.",
            single=True,
        ),
        Figure("Rank by layer", ranks(about), "Bands are 95 % intervals."),
        Figure(
            "Collective shift by layer",
            shifts(about),
            "1 would be: all of a user's shift lies in the shared direction.",
        ),
        Figure(
            "Users",
            people(about),
            f"Middle layer, centred; coloured by {_colour(about)}.",
            single=True,
        ),
    ]


def conclusions(about: Mapping[str, Any]) -> list[str]:
    """The paper's findings and what the controls say of them, a sentence each."""
    few, shift = about["findings"]["few-directions"], about["findings"]["collective-shift"]
    layer = about["layers"][about["middle"]]
    own = layer[HISTORY]["shift"]
    low, high = (shift["difference"][end] / own["value"] for end in ("low", "high"))
    lines = [
        f"Few directions carry 80 % and 90 %: {few['verdict']}. {_rank(few['ranks']['0.8'])} and "
        f"{_rank(few['ranks']['0.9'])} of {few['directions']} possible; at most {few['few']} would be few. "
        f"Random text: {_rank(few[RANDOM]['0.8'])} and {_rank(few[RANDOM]['0.9'])}.",
        f"Collective coordinate of history above random text of the same length: {shift['verdict']}. "
        f"History {_plain(own)}, random text {_plain(layer[RANDOM]['shift'])}; difference "
        f"{_signed(shift['difference'])}, between {low:+z.0%} and {high:+z.0%} of history's. On a "
        f"direction of its own random text has {_plain(layer[RANDOM]['own-shift'])}; the two have a cosine "
        f"of {layer[RANDOM]['cosine']:.2f}.",
        f"History above another user's: {shift[OTHER]['verdict']}. Difference "
        f"{_signed(shift[OTHER]['difference'])}; personal spread {_plain(layer[HISTORY]['spread'])}.",
    ]
    if "grouping" in about["people"]:
        lines.append(_by_label(about["people"]["grouping"]))
    if about["users"] < FEWEST:
        lines.insert(0, f"Too few to tell a finding from chance: {count_of(about['users'], 'user')}.")
    return lines


def _by_label(groups: Mapping[str, Mapping[str, float]]) -> str:
    """Say how much of what users differ in their most frequent labels tell."""
    if groups[HISTORY]["chance"] > 1 - 1e-6:
        return "Users by their most frequent label: each user has another one."
    said = {kind: f"{one['share']:.0%} (p = {one['p']:.2g})" for kind, one in groups.items()}
    return (
        f"Users by their most frequent label: {said[HISTORY]} of the variance of their delta-vectors is "
        f"between labels, {groups[HISTORY]['chance']:.0%} by chance. After random text {said[RANDOM]}, "
        f"after another's history {said[OTHER]}: what the questions alone tell."
    )


def _colour(about: Mapping[str, Any]) -> str:
    return "the mean length of items" if "words" in about["people"] else "the user's most frequent label"


def _rank(about: Mapping[str, float]) -> str:
    return f"{about['value']:.0f} [{about['low']:.0f}, {about['high']:.0f}]"


def _plain(about: Mapping[str, float], sign: str = "") -> str:
    """Three digits of the largest of the three numbers, and as many decimals of all."""
    largest = max(abs(about[end]) for end in ("value", "low", "high"))
    decimals = max(0, 2 - math.floor(math.log10(largest))) if largest else 0
    value, low, high = (f"{about[end]:{sign}z.{decimals}f}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _signed(about: Mapping[str, float]) -> str:
    return _plain(about, "+")


def _noted(text: str) -> Noted:
    value, _, interval = text.partition(" ")
    return Noted(value, interval)


def _texts(about: Mapping[str, Any]) -> Table:
    head = [
        "text",
        *(f"rank .{f'{tau:g}'[2:]}" for tau in TAUS),
        "rank .9, centred",
        "first direction",
        "collective shift",
        "history above it",
        "own direction",
        "spread",
        "length of v",
    ]
    rows = []
    for kind in TEXTS:
        of = about["layers"][about["middle"]][kind]
        cells: list[str | Noted] = [
            kind,
            *(_noted(_rank(of["ranks"][f"{tau:g}"])) for tau in TAUS),
            _noted(_rank(of["personal-ranks"]["0.9"])),
            f"{of['first-share']:.0%}",
            _noted(_plain(of["shift"])),
            "" if kind == HISTORY else _noted(_signed(of["difference"])),
            _noted(_plain(of["own-shift"])),
            _noted(_plain(of["spread"])),
            f"{of['length']:.3g}",
        ]
        rows.append(Row(cells, best=kind == HISTORY))
    return Table(head, rows)


def _sweep(about: Mapping[str, Any]) -> Table:
    head = [
        "layer",
        *(f"rank .{f'{tau:g}'[2:]}" for tau in TAUS),
        "random text: .9",
        "collective shift",
        "random text",
        "difference",
        "another's: difference",
        "spread",
        "length of v",
    ]
    rows = []
    for number, layer in enumerate(about["layers"]):
        of = layer[HISTORY]
        cells: list[str | Noted] = [
            str(number),
            *(_noted(_rank(of["ranks"][f"{tau:g}"])) for tau in TAUS),
            _noted(_rank(layer[RANDOM]["ranks"]["0.9"])),
            _noted(_plain(of["shift"])),
            _noted(_plain(layer[RANDOM]["shift"])),
            _noted(_signed(layer[RANDOM]["difference"])),
            _noted(_signed(layer[OTHER]["difference"])),
            _noted(_plain(of["spread"])),
            f"{of['length']:.3g}",
        ]
        rows.append(Row(cells, best=number == about["middle"]))
    return Table(head, rows)


def terminal_table(name: str, about: Mapping[str, Any]) -> TerminalTable:
    """One task at the middle layer."""
    shown = TerminalTable(
        title=f"{name}: {count_of(about['users'], 'user')}, "
        f"layer {about['middle']} of {len(about['layers'])}, 95 % intervals"
    )
    heads: Sequence[str] = (
        "text",
        "rank .8",
        "rank .9",
        "rank .95",
        "collective shift",
        "history above it",
        "spread",
    )
    for head in heads:
        shown.add_column(head, justify="left" if head == "text" else "right")
    for kind in TEXTS:
        of = about["layers"][about["middle"]][kind]
        shown.add_row(
            kind,
            *(_rank(of["ranks"][f"{tau:g}"]).replace("[", r"\[") for tau in TAUS),
            _plain(of["shift"]).replace("[", r"\["),
            "" if kind == HISTORY else _signed(of["difference"]).replace("[", r"\["),
            f"{of['spread']['value']:#.3g}",
            style="bold" if kind == HISTORY else None,
        )
    return shown
