"""One self-contained page about a run, and the table a run ends with."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table as TerminalTable

from fedperfit.protocol.system.errors import count_of
from fedperfit.protocol.system.files import read_json, write_atomic
from fedperfit.simulation.report import plots, traffic
from fedperfit.simulation.report.bootstrap import FEWEST, doubt
from fedperfit.simulation.report.html import Figure, Noted, Row, Table, estimate, render, shared_pictures
from fedperfit.simulation.report.svg import Picture
from fedperfit.simulation.run.summary import METRICS, run_settings

REPORT = "report.html"
_NAMES = {
    "base": "base model alone",
    "collective": "collective shift",
    "directions": "collective + group's directions",
    "personal": "collective + personal",
}


def write_report(folder: Path) -> Path:
    """Write `report.html` of a run folder from its metrics.json and its settings."""
    summary, settings = read_json(folder / METRICS), run_settings(folder)
    path = folder / REPORT
    write_atomic(path, page(summary, settings.to_flat()).encode())
    return path


def pictures(folder: Path) -> dict[str, Picture]:
    """Return the plots of a finished run by title, without that of single users."""
    return shared_pictures(_figures(read_json(folder / METRICS)))


def page(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The report as HTML; sections without data are left out.

    Args:
        summary: What `summarise` makes of a run folder.
        settings: The run's settings, with what it chose by itself.
    """
    return render(
        "run.html",
        title=f"fedperfit: {summary['task']}",
        task=summary["task"],
        settings=settings,
        headline=headline(summary),
        subline=_subline(summary),
        scores=_scores(summary),
        differences=_differences(summary),
        figures=_figures(summary),
        history=_history(summary),
        selection=_selection(summary["places"]),
        sent=_communication(summary["communication"]),
        privacy=summary.get("privacy", ""),
        dropped=_dropped(summary),
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
    if stages["personal"]["users"] < FEWEST:
        few = count_of(stages["personal"]["users"], "user")
        return f"Too few to tell a difference from chance, {few}: {span}"
    if not about["significant"]:
        return f"The personal shift made no difference beyond chance: {span}"
    return f"The personal shift {'improved' if better else 'worsened'} {span}"


def _subline(summary: Mapping[str, Any]) -> str:
    main, parts = summary["main"], []
    difference = summary["differences"].get("personal-collective")
    if difference:
        about = difference[main]
        parts.append(
            f"Paired difference {about['value']:+z.3f}, "
            f"95 % interval {about['low']:+z.3f} to {about['high']:+z.3f}, "
            f"{count_of(summary['stages']['personal']['users'], 'user')}."
        )
    share = summary.get("share", {}).get("personal")
    if share:
        parts.append(
            f"That is {share['value']:z.0%} ({share['low']:z.0%} to {share['high']:z.0%}) "
            "of what knowing the user could gain."
        )
    sent = summary["communication"]
    if sent:
        parts.append(f"{_payload(sent)}. A personal shift has {_parameters(sent)}; {_personal(sent)}.")
    return " ".join(parts)


def _parameters(sent: Mapping[str, Any]) -> str:
    """How many numbers a personal shift has, which under a prior over people depends on the items."""
    most = f"{sent['personal-parameters']:,}"
    if "prior-parameters" not in sent:
        return f"{most} parameters"
    items = count_of(sent["prior-items"], "item")
    return f"{sent['prior-parameters']:,} parameters with at most {items}, up to {most} with more"


def _personal(sent: Mapping[str, Any]) -> str:
    """What the scan of the replies found."""
    scanned = sent["scanned"]
    if not scanned["replies"]:
        return "no reply of anybody who had one was searched"
    return (
        f"{scanned['personal']:,} B of personal shifts were found in the {scanned['replies']:,} replies "
        f"({scanned['bytes'] / 1e3:,.1f} kB) of those who had one"
    )


def _payload(sent: Mapping[str, Any]) -> str:
    """What one client and the cloud sent each other in a round; in a basis far less up than down."""
    if sent["payload-up"] == sent["payload-down"]:
        return f"{sent['payload-up'] / 1e3:.1f} kB travelled per client, round and direction"
    return f"{sent['payload-up']:,.0f} B up and {sent['payload-down']:,.0f} B down per client and round"


def _score_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Key, name and metrics of every row of the score table, bounds included."""
    rows = [(stage, _NAMES[stage], about["metrics"]) for stage, about in summary["stages"].items()]
    bounds = summary.get("bounds", {}).get("targets")
    if bounds:
        rows.insert(0, ("unknown", "best without knowing the user", bounds["unknown"]))
        rows.append(("bayes", "Bayes-optimal, the user known", bounds["bayes"]))
    return rows


def _scores(summary: Mapping[str, Any]) -> Table | None:
    rows = _score_rows(summary)
    if not rows:
        return None
    names = list(rows[0][2])
    shares = summary.get("share", {})
    body = []
    for key, name, metrics in rows:
        cells: list[str | Noted] = [name, *(estimate(metrics[metric]) for metric in names)]
        if shares:
            cells.append(estimate(shares[key], ".0%") if key in shares else "")
        body.append(Row(cells, best=key == "personal"))
    return Table(["", *names, *(["share of the possible gain"] if shares else [])], body)


def _differences(summary: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{metric} {about['value']:+z.3f} [{about['low']:+z.3f}, {about['high']:+z.3f}]"
        f"{'' if about['significant'] else f' ({doubt(about)})'}"
        for metric, about in summary["differences"].get("personal-collective", {}).items()
    )


def _figures(summary: Mapping[str, Any]) -> list[Figure]:
    stages = summary["stages"]
    losses = [report for report in summary["rounds"] if report["loss"] is not None]
    parts: list[tuple[Any, str, Callable[[Mapping[str, Any]], Picture], str]] = [
        (
            stages,
            "By stage",
            plots.stages_plot,
            "Score pooled over the target users' questions; bars are 95 % bootstrap intervals over users.",
        ),
        (
            {"collective", "personal"} <= set(stages),
            "User by user",
            plots.users_plot,
            "One point per target user; off the dotted line the personal shift changed the score.",
        ),
        (
            summary["history"],
            "Cold start by history",
            plots.history_plot,
            "Newcomers with their latest 0, 1, 2, … items; 0 is the collective shift alone. Bands are 95 % "
            "intervals.",
        ),
        (
            summary["collective"],
            "Cold start by collective clients",
            plots.collective_plot,
            "Newcomers on collective shifts trained by fewer or more clients, alone and with a personal "
            "shift from few items.",
        ),
        (
            losses,
            "Collective training",
            plots.loss_plot,
            "Mean training loss of the clients that contributed to each round.",
        ),
        (
            summary.get("time"),
            "Score over simulated time",
            plots.time_plot,
            "The target users with the collective shift as it was after rounds, by the clock of simulated "
            "devices. Bands are 95 % intervals.",
        ),
        (
            summary["communication"],
            "What travels",
            plots.bytes_plot,
            "One message of training, as measured; the others are counted from the base model's shapes.",
        ),
    ]
    return [
        Figure(title, plot(summary), caption, single=plot is plots.users_plot)
        for data, title, plot, caption in parts
        if data
    ]


def _history(summary: Mapping[str, Any]) -> Table | None:
    points, main = summary["history"], summary["main"]
    if not points:
        return None
    limited = any("limit" in point for point in points)
    rows = []
    for point in points:
        gained = point["size"] and "difference" in point
        cells: list[str | Noted] = [
            str(point["size"]),
            estimate(point["metrics"][main]),
            estimate(point["difference"][main], "+.3f") if gained else "",
        ]
        if limited:
            share = point.get("share")
            cells.append(estimate(point["limit"][main]) if "limit" in point else "")
            cells.append(estimate(share, ".0%") if share else "")
        rows.append(Row(cells))
    ends = ["best with these items (Bayes)", "share of the way there"] if limited else []
    return Table(["history items", main, "minus collective only", *ends], rows)


def _selection(about: Mapping[str, Any]) -> dict[str, Any] | None:
    if not about:
        return None
    chosen = about["settings"].get("layers", [])
    rows = [
        Row([str(layer), f"{value:.3g}"], best=layer in chosen)
        for layer, value in enumerate(about["relevance"])
    ]
    return {**about, "layers": Table(["layer", "nats per state length"], rows)}


def _communication(about: Mapping[str, Any]) -> dict[str, Any] | None:
    if not about:
        return None
    own = about["payload-up"]
    alternatives = ", ".join(
        f"{name} {size:,} B ({size / own:,.1f} times)" for name, size in about["alternatives"].items() if own
    )
    return {
        "what": "update" if own != about["payload-down"] else "packed collective shift",
        "payload": f"{own:,.0f}",
        "alternatives": alternatives,
        "clients": "; ".join(f"{way} {_range(ends)}" for way, ends in about["clients"].items()),
        "personal": f"{_parameters(about)}; {_personal(about)}",
        "messages": traffic.message_table(about),
        "parts": traffic.part_table(about),
        "words": traffic.part_words(about),
    }


def _range(ends: Mapping[str, float]) -> str:
    low, median, high = (f"{ends[end]:,.0f}" for end in ("min", "median", "max"))
    return f"{low} B each" if low == high else f"{low} to {high} B, median {median}"


def _dropped(summary: Mapping[str, Any]) -> Table | None:
    rows = [
        Row([str(report["round"]), client, reason])
        for report in summary["rounds"]
        for client, reason in report["dropped"].items()
    ]
    return Table(["round", "client", "reason"], rows, text=True) if rows else None


def summary_table(summary: Mapping[str, Any]) -> TerminalTable:
    """The scores of a run for the terminal."""
    rows = _score_rows(summary)
    shares = summary.get("share", {})
    sent = summary["communication"]
    caption = headline(summary)
    if sent:
        up = sent["payload-up"]
        each = "client, round and direction" if up == sent["payload-down"] else "update"
        caption += f"\n{up:,.0f} B per {each}; {_personal(sent)}"
    if summary.get("privacy"):
        caption += f"\nwhat any one contributor changes: {summary['privacy']}"
    shown = TerminalTable(title=f"{summary['task']}, 95 % intervals over users", caption=caption)
    shown.add_column("stage")
    names = list(rows[0][2]) if rows else []
    for name in names:
        shown.add_column(name, justify="right")
    if shares:
        shown.add_column("share of gain", justify="right")
    for key, label, metrics in rows:
        cells = [f"{m['value']:.3f} ({m['low']:.3f}-{m['high']:.3f})" for m in (metrics[n] for n in names)]
        if shares:
            cells.append(f"{shares[key]['value']:z.0%}" if key in shares else "")
        shown.add_row(label, *cells)
    return shown
