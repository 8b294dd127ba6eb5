"""A delta-vector study's report.html, and what it ends with on a terminal."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rich.table import Table

from fedperfit.protocol.system.files import write_atomic
from fedperfit.simulation.analyze.pictures import coordinates, people, ranks, shifts, spectrum
from fedperfit.simulation.analyze.settings import AnalyzeSettings
from fedperfit.simulation.analyze.spectra import TAUS
from fedperfit.simulation.analyze.vectors import HISTORY, OTHER, RANDOM, TEXTS
from fedperfit.simulation.report.html import figure, grid, page, table

REPORT = "report.html"
_NOTE = (
    "v is the mean over a user's questions of the hidden state of the last token after a text, less the same "
    "without it. Ranks: directions of the uncentred SVD over users that carry the share, with jackknife "
    "intervals; centred: of what users differ in. Coordinates are on the first direction of history, fitted "
    "on half of the users and measured on the other half, both ways round, averaged over random halvings; "
    "their intervals are bootstrapped over users with these directions as given. Random text has as many "
    "tokens as the history, drawn from all users' items; another's history is cut to as many. The own "
    "direction is fitted on the kind of text itself: a text may move the state as far, elsewhere."
)


def write_page(folder: Path, summary: Mapping[str, Any], settings: AnalyzeSettings) -> None:
    """Write `report.html` of a study's folder."""
    sections = [_header(settings), _overview(summary)]
    for name, about in summary["tasks"].items():
        sections += _task(name, about)
    sections.append(_settings(settings))
    write_atomic(folder / REPORT, page("fedperfit analyze", sections, wide=True).encode())


def _header(settings: AnalyzeSettings) -> str:
    return (
        '<header><p class="soft">fedperfit analyze · base model '
        f"<code>{escape(settings.base_model)}</code> · data <code>{escape(settings.data)}</code></p>"
        "<h1>What a history does inside the model</h1>"
        '<p class="lead">Delta-vectors: how the hidden state of a question\'s last token moves when the '
        "user's history stands before it. The paper finds that few directions carry them, and that one is "
        "shared by users and not an effect of length.</p></header>"
    )


def _overview(summary: Mapping[str, Any]) -> str:
    rows = []
    for name, about in summary["tasks"].items():
        few, shift = about["findings"]["few-directions"], about["findings"]["collective-shift"]
        cells = [
            escape(name),
            f"{few['verdict']} <small>{_rank(few['ranks']['0.8'])}, {_rank(few['ranks']['0.9'])}</small>",
            *(
                f"{one['verdict']} <small>{_signed(one['difference'])}</small>"
                for one in (shift, shift[OTHER])
            ),
        ]
        rows.append((cells, False))
    head = [
        "at the middle layer",
        "few directions carry 80 % and 90 %",
        "collective coordinate above random text's",
        "above another user's",
    ]
    return f"<section><h2>The findings</h2>{table(head, rows)}</section>"


def _task(name: str, about: Mapping[str, Any]) -> list[str]:
    said = "".join(f"<p>{escape(line)}</p>" for line in conclusions(about))
    intro = (
        f"<section><h2>{escape(name)}</h2>{said}{_texts(about)}"
        f"<p class=soft>{about['users']} users ({about['left-out']} left out: no item fits), "
        f"{about['queries']} questions, {about['tokens']:.0f} tokens of history on average, hidden size "
        f"{about['hidden-size']}, layer {about['middle']} of {len(about['layers'])} (from 0). {escape(_NOTE)}"
        "</p></section>"
    )
    pictures = grid(
        [
            figure(
                "Spectrum",
                spectrum(about),
                "Middle layer. The dashed line is what directions of half of the users carry of the others: "
                "where it stays below, directions are single users' own.",
            ),
            figure("Coordinates", coordinates(about), "Middle layer. Dots are users, diamonds means."),
            figure("Rank by layer", ranks(about), "Bands are 95 % intervals."),
            figure(
                "Collective shift by layer",
                shifts(about),
                "1 would be: all of a user's shift lies in the shared direction.",
            ),
            figure("Users", people(about), f"Middle layer, centred; coloured by {_colour(about)}."),
        ]
    )
    return [intro, pictures, f"<section><h2>{escape(name)}, all layers</h2>{_sweep(about)}</section>"]


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
        f"{_signed(shift['difference'])}, between {low:+.0%} and {high:+.0%} of history's. On a direction of "
        f"its own random text has {_plain(layer[RANDOM]['own-shift'])}; the two have a cosine of "
        f"{layer[RANDOM]['cosine']:.2f}.",
        f"History above another user's: {shift[OTHER]['verdict']}. Difference "
        f"{_signed(shift[OTHER]['difference'])}; personal spread {_plain(layer[HISTORY]['spread'])}.",
    ]
    if "grouping" in about["people"]:
        groups = about["people"]["grouping"]
        said = {kind: f"{one['share']:.0%} (p = {one['p']:.2g})" for kind, one in groups.items()}
        lines.append(
            f"Users by their most frequent label: {said[HISTORY]} of the variance of their delta-vectors is "
            f"between labels, {groups[HISTORY]['chance']:.0%} by chance. After random text {said[RANDOM]}, "
            f"after another's history {said[OTHER]}: what the questions alone tell."
        )
    return lines


def _colour(about: Mapping[str, Any]) -> str:
    return "the mean length of items" if "words" in about["people"] else "the user's most frequent label"


def _rank(about: Mapping[str, float]) -> str:
    return f"{about['value']:.0f} [{about['low']:.0f}, {about['high']:.0f}]"


def _plain(about: Mapping[str, float], sign: str = "") -> str:
    """Three digits of the largest of the three numbers, and as many decimals of all."""
    largest = max(abs(about[end]) for end in ("value", "low", "high"))
    decimals = max(0, 2 - math.floor(math.log10(largest))) if largest else 0
    value, low, high = (f"{about[end]:{sign}.{decimals}f}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _signed(about: Mapping[str, float]) -> str:
    return _plain(about, "+")


def _small(text: str) -> str:
    value, _, interval = text.partition(" ")
    return f"{value} <small>{interval}</small>"


def _texts(about: Mapping[str, Any]) -> str:
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
        cells = [
            escape(kind),
            *(_small(_rank(of["ranks"][f"{tau:g}"])) for tau in TAUS),
            _small(_rank(of["personal-ranks"]["0.9"])),
            f"{of['first-share']:.0%}",
            _small(_plain(of["shift"])),
            "" if kind == HISTORY else _small(_signed(of["difference"])),
            _small(_plain(of["own-shift"])),
            _small(_plain(of["spread"])),
            f"{of['length']:.3g}",
        ]
        rows.append((cells, kind == HISTORY))
    return table(head, rows)


def _sweep(about: Mapping[str, Any]) -> str:
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
        cells = [
            str(number),
            *(_small(_rank(of["ranks"][f"{tau:g}"])) for tau in TAUS),
            _small(_rank(layer[RANDOM]["ranks"]["0.9"])),
            _small(_plain(of["shift"])),
            _small(_plain(layer[RANDOM]["shift"])),
            _small(_signed(layer[RANDOM]["difference"])),
            _small(_signed(layer[OTHER]["difference"])),
            _small(_plain(of["spread"])),
            f"{of['length']:.3g}",
        ]
        rows.append((cells, number == about["middle"]))
    return table(head, rows)


def _settings(settings: AnalyzeSettings) -> str:
    rows = [
        (
            [
                f"<code>{escape(key)}</code>",
                escape(", ".join(value) if isinstance(value, list) else str(value)),
            ],
            False,
        )
        for key, value in settings.to_flat().items()
    ]
    return f"<section><h2>Settings</h2>{table(['setting', 'value'], rows)}</section>"


def terminal_table(name: str, about: Mapping[str, Any]) -> Table:
    """One task at the middle layer."""
    shown = Table(
        title=f"{name}: {about['users']} users, layer {about['middle']} of {len(about['layers'])}, "
        "95 % intervals"
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
