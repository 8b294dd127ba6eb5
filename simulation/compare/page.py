"""A comparison's report.html, and the tables it ends with on a terminal."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from rich.table import Table

from fedperfit.protocol.system.files import write_atomic
from fedperfit.simulation.compare.pictures import costs, curves, scores
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.report.bootstrap import LOWER_IS_BETTER
from fedperfit.simulation.report.html import estimate, figure, page, table

REPORT = "report.html"
_BOUNDS = {"unknown": "best without knowing the user", "bayes": "Bayes-optimal, the user known"}
_NOTE = (
    "Pooled over questions, mean over seeds; 95 % bootstrap intervals over users. The difference to PerFit "
    "is paired over users; * where its interval leaves out zero. Bytes down: the collective part, once per "
    "user; a contributor sends as much per round. Bytes up: what leaves a user's machine to fit and to "
    "answer. Seconds and memory are medians over users, in a worker process among others; memory is what "
    "fitting and answering take above the loaded model."
)


def write_page(folder: Path, summary: Mapping[str, Any], settings: CompareSettings) -> None:
    """Write `report.html` of a comparison's folder."""
    sections = [_header(settings)]
    for name, about in summary["tasks"].items():
        sections += _task(name, about)
    sections.append(_settings(settings))
    write_atomic(folder / REPORT, page("fedperfit compare", sections, wide=True).encode())


def _header(settings: CompareSettings) -> str:
    return (
        '<header><p class="soft">fedperfit compare · base model '
        f"<code>{escape(settings.base_model)}</code> · data <code>{escape(settings.data)}</code></p>"
        "<h1>Personalization methods side by side</h1>"
        f'<p class="lead">{len(settings.methods)} methods, seeds {", ".join(map(str, settings.seeds))}; '
        f"hyper-parameters of each from {settings.draws} random draws on users who are no targets.</p>"
        "</header>"
    )


def _task(name: str, about: Mapping[str, Any]) -> list[str]:
    families = {row["method"]: row["family"] for row in about["rows"]}
    intro = (
        f"<section><h2>{escape(name)}</h2><p>{escape(standing(about))}</p>{_rows(about)}"
        f"<p class=soft>{about['users']} target users, {about['questions']} questions, {about['others']} "
        f"other users. {escape(_NOTE)}</p>{_pattern(about)}</section>"
    )
    by_history, by_others = (
        curves(about, kind, families) if about[kind] else "" for kind in ("history", "collective")
    )
    return [
        intro,
        figure("Scores", scores(about), "Bars are 95 % bootstrap intervals over users."),
        figure("Score against bytes", costs(about, "bytes"), "Left of the line: no bytes at all."),
        figure("Score against time", costs(about, "seconds"), "Left of the line: nothing is fitted."),
        figure("Cold start by history", by_history, "The first target users with their latest items."),
        figure(
            "Cold start by other users",
            by_others,
            "Methods with a collective part, learned on the first so many other users; few history items.",
        ),
        _searches(about),
    ]


def standing(about: Mapping[str, Any]) -> str:
    """Where PerFit stands among the rows, in a sentence."""
    main, sign = about["main"], -1 if about["lower-is-better"] else 1
    rows = {row["method"]: row for row in about["rows"]}
    if "perfit" not in rows:
        return f"{len(rows)} methods, without PerFit to compare them with."
    gaps = {row["title"]: row["difference"][main] for row in rows.values() if "difference" in row}
    above = [title for title, gap in gaps.items() if gap["significant"] and sign * gap["value"] > 0]
    equal = [title for title, gap in gaps.items() if not gap["significant"]]
    value = rows["perfit"]["metrics"][main]["value"]
    return (
        f"PerFit: {main} {value:.3f}. Better beyond chance: {', '.join(above) or 'none'}. Within chance of "
        f"it: {', '.join(equal) or 'none'}. Worse: {len(gaps) - len(above) - len(equal)} of {len(gaps)}."
    )


def _rows(about: Mapping[str, Any]) -> str:
    main = about["main"]
    rest = [name for name in about["rows"][0]["metrics"] if name != main]
    share = any("share" in row for row in about["rows"])
    head = [
        "",
        main,
        "against PerFit",
        *(["of the gain"] if share else []),
        "parameters per user",
        "bytes down",
        "bytes up",
    ]
    head += ["fit s", "answer ms", "memory MB", f"{main}, mean over users", *rest]
    body = []
    for row in about["rows"]:
        values = row["metrics"]
        cells = [escape(_title(row, about)), estimate(values[main]), _difference(row, main)]
        if share:
            cells.append(estimate(row["share"], percent=True) if "share" in row else "")
        cells += [*_cost_cells(row), f"{values[main]['user-mean']:.3f}", *(estimate(values[n]) for n in rest)]
        body.append((cells, row["method"] == "perfit"))
    if "bounds" in about:
        for place, which in ((0, "unknown"), (len(body) + 1, "bayes")):
            values = about["bounds"][which]
            empty = [""] * (len(head) - 2 - len(rest))
            cells = [_BOUNDS[which], estimate(values[main]), *empty, *(estimate(values[n]) for n in rest)]
            body.insert(place, (cells, False))
    return table(head, body)


def _title(row: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    return str(row["title"]) + (f", {row['users']} users" if row["users"] < about["users"] else "")


def _difference(row: Mapping[str, Any], main: str) -> str:
    if "difference" not in row:
        return ""
    about = row["difference"][main]
    mark = "*" if about["significant"] else ""
    return f"{about['value']:+.3f}{mark} <small>[{about['low']:+.3f}, {about['high']:+.3f}]</small>"


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
    """Whether the first of a pair is above the second: `holds`, `within chance` or `reversed`."""
    if not pair["significant"]:
        return "within chance"
    return "holds" if (pair["value"] < 0) == lower else "reversed"


def _pattern(about: Mapping[str, Any]) -> str:
    if not about["pattern"]:
        return ""
    rows = [
        (
            [
                f"{escape(pair['above'])} above {escape(pair['below'])}",
                f"{pair['value']:+.3f} <small>[{pair['low']:+.3f}, {pair['high']:+.3f}]</small>",
                verdict(pair, lower=about["lower-is-better"]),
            ],
            False,
        )
        for pair in about["pattern"]
    ]
    return "<h2>What the paper finds</h2>" + table(["", "difference, paired", ""], rows)


def _searches(about: Mapping[str, Any]) -> str:
    if not about["search"]:
        return ""
    rows = [
        (
            [
                escape(name),
                str(one["draws"]),
                f"{one['score']:.3f}",
                f"{one['seconds']:.0f}",
                _wrapped(", ".join(f"{key} {value}" for key, value in one["chosen"].items())),
            ],
            False,
        )
        for name, one in about["search"].items()
    ]
    head = ["search", "draws", "best validation score", "seconds", "chosen"]
    return f"<section><h2>Hyper-parameters</h2>{table(head, rows)}</section>"


def _settings(settings: CompareSettings) -> str:
    rows = [
        ([f"<code>{escape(key)}</code>", _wrapped(_said(value))], False)
        for key, value in settings.to_flat().items()
    ]
    return f"<section><h2>Settings</h2>{table(['setting', 'value'], rows)}</section>"


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _wrapped(text: str) -> str:
    return f'<span class="wrap">{escape(text)}</span>'


def terminal_table(name: str, about: Mapping[str, Any]) -> Table:
    """The rows of one task."""
    main = about["main"]
    better = "lower" if main in LOWER_IS_BETTER else "higher"
    shown = Table(title=f"{name}: {main} ({better} is better), {about['users']} users, 95 % intervals")
    for head in ("method", main, "against PerFit", "params/user", "bytes down", "up", "fit s"):
        shown.add_column(head, justify="left" if head == "method" else "right")
    for row in about["rows"]:
        value = row["metrics"][main]
        gap = row.get("difference", {}).get(main)
        shown.add_row(
            _title(row, about),
            f"{value['value']:.3f} ({value['low']:.3f}-{value['high']:.3f})",
            f"{gap['value']:+.3f}{'*' if gap['significant'] else ' '}" if gap else "",
            *_cost_cells(row)[:4],
            style="bold" if row["method"] == "perfit" else None,
        )
    return shown
