"""One self-contained page about a run, and the table a run ends with."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from rich.table import Table

from fedperfit.cloud.job.settings import read_settled
from fedperfit.protocol.system.files import read_json, write_atomic
from fedperfit.simulation.report.html import estimate, figure, grid, page, table
from fedperfit.simulation.run import plots
from fedperfit.simulation.run.summary import METRICS

REPORT = "report.html"
_NAMES = {
    "base": "base model alone",
    "collective": "collective shift",
    "directions": "collective + group's directions",
    "personal": "collective + personal",
}


def write_report(folder: Path) -> Path:
    """Write `report.html` of a run folder from its metrics.json and its settings."""
    summary, settings = read_json(folder / METRICS), read_settled(folder)
    path = folder / REPORT
    write_atomic(path, render(summary, settings).encode())
    return path


def render(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The page; sections without data are left out."""
    sections = [
        _header(summary, settings),
        _scores(summary),
        grid(
            [
                _figure("By stage", summary["stages"], plots.stages_plot, summary, _STAGES_CAPTION),
                _figure("User by user", _both(summary), plots.users_plot, summary, _USERS_CAPTION),
                _figure(
                    "Cold start by history", summary["history"], plots.history_plot, summary, _HISTORY_CAPTION
                ),
                _figure(
                    "Cold start by collective clients",
                    summary["collective"],
                    plots.collective_plot,
                    summary,
                    _COLLECTIVE_CAPTION,
                ),
                _figure("Collective training", _losses(summary), plots.loss_plot, summary, _LOSS_CAPTION),
                _figure("What travels", summary["communication"], plots.bytes_plot, summary, _BYTES_CAPTION),
            ]
        ),
        _history_table(summary),
        _places(summary),
        _communication(summary),
        _dropped(summary),
        _settings(settings),
    ]
    return page(f"fedperfit: {summary['task']}", sections)


_STAGES_CAPTION = (
    "Score pooled over the target users' questions; bars are 95 % bootstrap intervals over users."
)
_USERS_CAPTION = "One point per target user; off the dotted line the personal shift changed the score."
_HISTORY_CAPTION = (
    "Newcomers with their latest 0, 1, 2, … items; 0 is the collective shift alone. Bands are 95 % intervals."
)
_COLLECTIVE_CAPTION = (
    "Newcomers on collective shifts trained by fewer or more clients, alone and with a personal shift from "
    "few items."
)
_LOSS_CAPTION = "Mean training loss of the clients that contributed to each round."
_BYTES_CAPTION = "One packed shift, as measured; the others are counted from the base model's shapes."


def _header(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    base, data = escape(str(settings["base-model"])), escape(str(settings["data"]))
    return (
        f'<header><p class="soft">fedperfit · {escape(str(summary["task"]))} · '
        f"base model <code>{base}</code> · data <code>{data}</code></p><h1>{escape(headline(summary))}</h1>"
        f'<p class="lead">{escape(_subline(summary))}</p></header>'
    )


def headline(summary: Mapping[str, Any]) -> str:
    """What happened, in one sentence; says so when the difference is within the interval."""
    main, difference = summary["main"], summary["differences"].get("personal-collective")
    if difference is None:
        return "This run has not reached the personal shift yet"
    stages = summary["stages"]
    before, after = (stages[stage]["metrics"][main]["value"] for stage in ("collective", "personal"))
    about = difference[main]
    better = (about["value"] < 0) == summary["lower-is-better"] and about["value"] != 0
    span = f"{main} from {before:.3f} to {after:.3f}"
    if not about["significant"]:
        return f"The personal shift made no difference beyond chance: {span}"
    return f"The personal shift {'improved' if better else 'worsened'} {span}"


def _subline(summary: Mapping[str, Any]) -> str:
    main, parts = summary["main"], []
    difference = summary["differences"].get("personal-collective")
    if difference:
        about = difference[main]
        parts.append(
            f"Paired difference {about['value']:+.3f}, "
            f"95 % interval {about['low']:+.3f} to {about['high']:+.3f}, "
            f"{summary['stages']['personal']['users']} users."
        )
    share = summary.get("share", {}).get("personal")
    if share:
        parts.append(
            f"That is {share['value']:.0%} ({share['low']:.0%} to {share['high']:.0%}) "
            "of what knowing the user could gain."
        )
    sent = summary["communication"]
    if sent:
        parts.append(
            f"{sent['payload'] / 1e3:.1f} kB travelled per client, round and direction; the "
            f"{sent['personal-parameters']:,} parameters of a personal shift never did."
        )
    return " ".join(parts)


def _score_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Key, name and metrics of every row of the score table, bounds included."""
    rows = [(stage, _NAMES[stage], about["metrics"]) for stage, about in summary["stages"].items()]
    bounds = summary.get("bounds", {}).get("targets")
    if bounds:
        rows.insert(0, ("unknown", "best without knowing the user", bounds["unknown"]))
        rows.append(("bayes", "Bayes-optimal, the user known", bounds["bayes"]))
    return rows


def _scores(summary: Mapping[str, Any]) -> str:
    rows = _score_rows(summary)
    if not rows:
        return ""
    names = list(rows[0][2])
    shares = summary.get("share", {})
    head = ["", *names, *(["share of the possible gain"] if shares else [])]
    body = []
    for key, name, metrics in rows:
        cells = [escape(name), *(estimate(metrics[metric]) for metric in names)]
        if shares:
            cells.append(estimate(shares[key], percent=True) if key in shares else "")
        body.append((cells, key == "personal"))
    differences = summary["differences"].get("personal-collective", {})
    note = "; ".join(
        f"{metric} {about['value']:+.3f} [{about['low']:+.3f}, {about['high']:+.3f}]"
        f"{'' if about['significant'] else ' (within chance)'}"
        for metric, about in differences.items()
    )
    note = f'<p class="soft">Personal minus collective, paired over users: {note}.</p>' if note else ""
    return f"<section><h2>Scores</h2>{table(head, body)}{note}</section>"


def _figure(title: str, data: Any, plot: Any, summary: Mapping[str, Any], caption: str) -> str:
    if not data:
        return ""
    return figure(title, plot(summary), caption)


def _both(summary: Mapping[str, Any]) -> bool:
    return {"collective", "personal"} <= set(summary["stages"])


def _losses(summary: Mapping[str, Any]) -> list[Any]:
    return [report for report in summary["rounds"] if report["loss"] is not None]


def _history_table(summary: Mapping[str, Any]) -> str:
    points, main = summary["history"], summary["main"]
    if not points:
        return ""
    head = ["history items", main, "minus collective only"]
    rows = [
        (
            [
                str(point["size"]),
                estimate(point["metrics"][main]),
                estimate(point["difference"][main]) if point["size"] and "difference" in point else "",
            ],
            False,
        )
        for point in points
    ]
    return f"<section><h2>Cold start in numbers</h2>{table(head, rows)}</section>"


def _places(summary: Mapping[str, Any]) -> str:
    about = summary["places"]
    if not about:
        return ""
    chosen = about["settings"]
    named = ", ".join(f"<code>{escape(key)}</code> {escape(str(value))}" for key, value in chosen.items())
    rows = [
        ([str(layer), f"{value:.3g}"], layer in chosen.get("layers", []))
        for layer, value in enumerate(about["relevance"])
    ]
    return (
        f"<section><h2>Chosen in this run</h2><p>{named}: from the gradients of {about['clients']} "
        f"clients' losses, in {about['seconds']:.1f} s.</p>"
        f"{table(['layer', 'nats per state length'], rows)}</section>"
    )


def _communication(summary: Mapping[str, Any]) -> str:
    about = summary["communication"]
    if not about:
        return ""
    head = ["phase", "messages down", "bytes down", "of it shifts", "messages up", "bytes up", "of it shifts"]

    def cells(name: str, totals: Mapping[str, Mapping[str, int]]) -> list[str]:
        numbers = [totals[way][key] for way in ("down", "up") for key in ("messages", "message", "payload")]
        return [escape(name), *(f"{number:,}" for number in numbers)]

    rows = [(cells(f"round {one['round']}", one), False) for one in about["rounds"] if one["round"]]
    rows += [
        (cells(phase, totals), False)
        for phase, totals in sorted(about["phases"].items(), key=_natural)
        if phase != "train"
    ]
    others = ", ".join(
        f"{escape(name)} {size:,} B ({size / about['payload']:.1f} times)"
        for name, size in about["alternatives"].items()
        if about["payload"]
    )
    clients = "; ".join(
        f"{way} {ends['min']:,.0f} to {ends['max']:,.0f} B, median {ends['median']:,.0f}"
        for way, ends in about["clients"].items()
    )
    return (
        "<section><h2>Bytes, message by message</h2>"
        f"<p>One packed collective shift is {about['payload']:,.0f} B. "
        f"At the same precision would travel: {others}. Per client over all rounds of training: {clients}. "
        f"Personal shifts: {about['personal-parameters']:,} parameters each, 0 B sent.</p>"
        f"{table(head, rows)}"
        '<p class="soft">Whole messages as protobuf; HTTP headers and TLS are not counted.</p></section>'
    )


def _natural(entry: tuple[str, Any]) -> list[tuple[int, str]]:
    """history-2 before history-16."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in entry[0].split("-")]


def _dropped(summary: Mapping[str, Any]) -> str:
    rows = [
        ([str(report["round"]), escape(client), escape(reason)], False)
        for report in summary["rounds"]
        for client, reason in report["dropped"].items()
    ]
    if not rows:
        return ""
    return f"<section><h2>Updates dropped</h2>{table(['round', 'client', 'reason'], rows)}</section>"


def _settings(settings: Mapping[str, Any]) -> str:
    rows = [([f"<code>{escape(key)}</code>", escape(str(value))], False) for key, value in settings.items()]
    return f"<section><h2>Settings</h2>{table(['setting', 'value'], rows)}</section>"


def summary_table(summary: Mapping[str, Any]) -> Table:
    """The scores of a run for the terminal."""
    rows = _score_rows(summary)
    shares = summary.get("share", {})
    sent = summary["communication"]
    caption = headline(summary)
    if sent:
        caption += f"\n{sent['payload']:,.0f} B per client, round and direction; 0 B of personal shifts"
    shown = Table(title=f"{summary['task']}, 95 % intervals over users", caption=caption)
    shown.add_column("stage")
    names = list(rows[0][2]) if rows else []
    for name in names:
        shown.add_column(name, justify="right")
    if shares:
        shown.add_column("share of gain", justify="right")
    for key, label, metrics in rows:
        cells = [f"{m['value']:.3f} ({m['low']:.3f}-{m['high']:.3f})" for m in (metrics[n] for n in names)]
        if shares:
            cells.append(f"{shares[key]['value']:.0%}" if key in shares else "")
        shown.add_row(label, *cells)
    return shown
