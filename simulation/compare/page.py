"""A comparison's report.html, and the tables it ends with on a terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table as TerminalTable

from fedperfit.protocol.system.errors import count_of
from fedperfit.protocol.system.files import read_json, write_atomic
from fedperfit.simulation.compare.pictures import costs, curves, scores
from fedperfit.simulation.compare.results import METRICS
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.report.bootstrap import FEWEST, LOWER_IS_BETTER, doubt
from fedperfit.simulation.report.html import Figure, Noted, Row, Table, estimate, render, shared_pictures
from fedperfit.simulation.report.svg import Picture

REPORT = "report.html"
_BOUNDS = {"unknown": "best without knowing the user", "bayes": "Bayes-optimal, the user known"}


def write_page(folder: Path, summary: Mapping[str, Any], settings: CompareSettings) -> None:
    """Write `report.html` of a comparison's folder."""
    html = render(
        "compare.html",
        title="fedperfit compare",
        base_model=settings.base_model,
        data=settings.data,
        methods=len(settings.methods),
        seeds=", ".join(map(str, settings.seeds)),
        draws=settings.draws,
        tasks=[_task(name, about) for name, about in summary["tasks"].items()],
        failed=summary.get("failed", []),
        settings={key: _said(value) for key, value in settings.to_flat().items()},
    )
    write_atomic(folder / REPORT, html.encode())


def pictures(folder: Path) -> dict[str, Picture]:
    """Return the plots of a finished comparison, by task and title."""
    tasks = read_json(folder / METRICS)["tasks"]
    return {
        title: picture
        for name, about in tasks.items()
        for title, picture in shared_pictures(_figures(about), f"{name} ").items()
    }


def _task(name: str, about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "standing": standing(about),
        "rows": _rows(about),
        **{key: about[key] for key in ("users", "questions", "others")},
        "pattern": _pattern(about),
        "figures": _figures(about),
        "searches": _searches(about),
    }


def _figures(about: Mapping[str, Any]) -> list[Figure]:
    families = {row["method"]: row["family"] for row in about["rows"]}
    figures = [
        Figure("Scores", scores(about), "Bars are 95 % bootstrap intervals over users."),
        Figure("Score against bytes", costs(about, "bytes"), "Left of the line: no bytes at all."),
        Figure("Score against time", costs(about, "seconds"), "Left of the line: nothing is fitted."),
    ]
    if about["history"]:
        caption = "The first target users with their latest items."
        figures.append(Figure("Cold start by history", curves(about, "history", families), caption))
    if about["collective"]:
        caption = (
            "Methods with a collective part, learned on the first so many other users; few history items."
        )
        figures.append(Figure("Cold start by other users", curves(about, "collective", families), caption))
    return figures


def standing(about: Mapping[str, Any]) -> str:
    """Where PerFit stands among the rows, in a sentence."""
    main, sign = about["main"], -1 if about["lower-is-better"] else 1
    rows = {row["method"]: row for row in about["rows"]}
    if "perfit" not in rows:
        return f"{count_of(len(rows), 'method')}, without PerFit to compare them with."
    gaps = {row["title"]: row["difference"][main] for row in rows.values() if "difference" in row}
    above = [title for title, gap in gaps.items() if gap["significant"] and sign * gap["value"] > 0]
    equal = [title for title, gap in gaps.items() if not gap["significant"]]
    value = rows["perfit"]["metrics"][main]["value"]
    if about["users"] < FEWEST:
        return f"PerFit: {main} {value:.3f}. Too few to tell rows apart: {count_of(about['users'], 'user')}."
    return (
        f"PerFit: {main} {value:.3f}. Better beyond chance: {', '.join(above) or 'none'}. Within chance of "
        f"it: {', '.join(equal) or 'none'}. Worse: {len(gaps) - len(above) - len(equal)} of {len(gaps)}."
    )


def _rows(about: Mapping[str, Any]) -> Table:
    main = about["main"]
    rest = [name for name in about["rows"][0]["metrics"] if name != main]
    share = any("share" in row for row in about["rows"])
    costs = ["parameters per user", "bytes down", "bytes up", "fit s", "answer ms", "memory MB"]
    head = ["", main, "against PerFit", *(["of the gain"] if share else []), *costs]
    head += [f"{main}, mean over users", *rest]
    body = []
    for row in about["rows"]:
        values = row["metrics"]
        cells: list[str | Noted] = [_title(row, about), estimate(values[main]), _difference(row, main)]
        if share:
            cells.append(estimate(row["share"], ".0%") if "share" in row else "")
        cells += [*_cost_cells(row), f"{values[main]['user-mean']:.3f}", *(estimate(values[n]) for n in rest)]
        body.append(Row(cells, best=row["method"] == "perfit"))
    if "bounds" in about:
        for place, which in ((0, "unknown"), (len(body) + 1, "bayes")):
            values = about["bounds"][which]
            empty = [""] * (len(head) - 2 - len(rest))
            cells = [_BOUNDS[which], estimate(values[main]), *empty, *(estimate(values[n]) for n in rest)]
            body.insert(place, Row(cells))
    return Table(head, body)


def _title(row: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    return str(row["title"]) + (
        f", {count_of(row['users'], 'user')}" if row["users"] < about["users"] else ""
    )


def _difference(row: Mapping[str, Any], main: str) -> str | Noted:
    if "difference" not in row:
        return ""
    about = row["difference"][main]
    return estimate(about, "+.3f", mark="*" if about["significant"] else "")


def _cost_cells(row: Mapping[str, Any]) -> list[str]:
    memory = row["peak-bytes"]
    return [
        f"{row['parameters']:,.0f}",
        f"{row['bytes-down']:,.0f}",
        f"{row['bytes-up']:,.0f}",
        f"{row['fit-seconds']:.2f}",
        f"{1e3 * row['answer-seconds']:.0f}",
        "" if memory is None else f"{memory / 2**20:.0f}",
    ]


def verdict(pair: Mapping[str, Any], *, lower: bool) -> str:
    """Whether the first of a pair is above the second: `holds`, `reversed`, or why nobody can tell."""
    return doubt(pair) or ("holds" if (pair["value"] < 0) == lower else "reversed")


def _pattern(about: Mapping[str, Any]) -> Table | None:
    rows = [
        Row(
            [
                f"{pair['above']} above {pair['below']}",
                estimate(pair, "+.3f"),
                verdict(pair, lower=about["lower-is-better"]),
            ]
        )
        for pair in about["pattern"]
    ]
    return Table(["", "difference, paired", ""], rows) if rows else None


def _searches(about: Mapping[str, Any]) -> Table | None:
    rows = [
        Row(
            [
                name,
                str(one["draws"]),
                f"{one['score']:.3f}",
                f"{one['seconds']:.0f}",
                ", ".join(f"{key} {value}" for key, value in one["chosen"].items()),
            ]
        )
        for name, one in about["search"].items()
    ]
    head = ["search", "draws", "best validation score", "seconds", "chosen"]
    return Table(head, rows, text=True) if rows else None


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def terminal_table(name: str, about: Mapping[str, Any]) -> TerminalTable:
    """The rows of one task."""
    main = about["main"]
    better = "lower" if main in LOWER_IS_BETTER else "higher"
    shown = TerminalTable(
        title=f"{name}: {main} ({better} is better), {count_of(about['users'], 'user')}, 95 % intervals"
    )
    for head in ("method", main, "against PerFit", "params/user", "bytes down", "up", "fit s"):
        shown.add_column(head, justify="left" if head == "method" else "right")
    for row in about["rows"]:
        value = row["metrics"][main]
        gap = row.get("difference", {}).get(main)
        shown.add_row(
            _title(row, about),
            f"{value['value']:.3f} ({value['low']:.3f}-{value['high']:.3f})",
            f"{gap['value']:+z.3f}{'*' if gap['significant'] else ' '}" if gap else "",
            *_cost_cells(row)[:4],
            style="bold" if row["method"] == "perfit" else None,
        )
    return shown
