"""A study's report.html, and its table on a terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table as TerminalTable

from fedperfit.protocol.system.errors import count_of
from fedperfit.protocol.system.files import read_json, write_atomic
from fedperfit.simulation.communication.pictures import by_bytes
from fedperfit.simulation.communication.result import RESULTS
from fedperfit.simulation.communication.row import Family
from fedperfit.simulation.report.bootstrap import FEWEST
from fedperfit.simulation.report.html import Figure, Noted, Row, Table, estimate, render, shared_pictures
from fedperfit.simulation.report.svg import Picture

REPORT = "report.html"
_MEASURES = {"payload": "payload of an update", "message": "whole message with an update"}


def write_page(folder: Path, results: Mapping[str, Any]) -> None:
    """Write `report.html` of a study's folder.

    Args:
        folder: Folder of the study.
        results: The figures, as in results.json.
    """
    html = render(
        "communication.html",
        title="fedperfit communication",
        sockets=results["socket-bytes"],
        tasks=[_task(name, about) for name, about in results["tasks"].items() if about["rows"]],
        settings={key: _said(value) for key, value in results["settings"].items()},
    )
    write_atomic(folder / REPORT, html.encode())


def pictures(folder: Path) -> dict[str, Picture]:
    """Return the plots of a finished study, by task and title."""
    tasks = read_json(folder / RESULTS)["tasks"]
    return {
        title: picture
        for name, about in tasks.items()
        for title, picture in shared_pictures(_figures(about), f"{name} ").items()
    }


def _task(name: str, about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        **{key: about[key] for key in ("users", "questions", "others", "main")},
        "finding": finding(about),
        "table": _table(about),
        "figures": _figures(about),
        "searches": _searches(about),
    }


def _figures(about: Mapping[str, Any]) -> list[Figure]:
    personal = [row for row in about["rows"].values() if row["family"] == Family.PERSONAL]
    figures = [
        Figure(
            f"Score against the {what}",
            by_bytes(about, measure, personal=False),
            "Bars are 95 % bootstrap intervals over people.",
        )
        for measure, what in _MEASURES.items()
    ]
    if personal:
        figures.append(
            Figure(
                "With a personal part",
                by_bytes(about, "payload", personal=True),
                "What a person fits to own items never travels, and is not in the bytes.",
            )
        )
    return figures


def finding(about: Mapping[str, Any]) -> str:
    """Say which rows are above or below whole shifts beyond chance.

    Args:
        about: Figures of one task, as in results.json.
    """
    main, sign = about["main"], -1 if about["lower-is-better"] else 1
    rows = [row for row in about["rows"].values() if row["reference"] == "perfit" and "difference" in row]
    if not rows:
        return "Only rows that nothing is compared with are finished."
    if about["users"] < FEWEST:
        return f"Too few to tell rows apart: {count_of(about['users'], 'person', 'people')}."
    gaps = [(row["title"], row["difference"][main]) for row in rows]
    better = [title for title, gap in gaps if gap["significant"] and sign * gap["value"] > 0]
    worse = [title for title, gap in gaps if gap["significant"] and sign * gap["value"] < 0]
    same = len(gaps) - len(better) - len(worse)
    return (
        f"Against whole shifts in fp32, better beyond chance: {'; '.join(better) or 'none'}. Worse beyond "
        f"chance: {'; '.join(worse) or 'none'}. Within chance: {same} of {len(gaps)}."
    )


def _table(about: Mapping[str, Any]) -> Table:
    head = ["", about["main"], "difference", "rounds, passes in each", "update: payload B", "message B"]
    head += ["all: payload kB", "messages kB", "times fewer than LoRA", "s"]
    return Table(head, [_row(name, about) for name in about["rows"]])


def _row(name: str, about: Mapping[str, Any]) -> Row:
    row, main = about["rows"][name], about["main"]
    gap = row.get("difference", {}).get(main)
    cells: list[str | Noted] = [row["title"], estimate(row["metrics"][main])]
    cells.append(estimate(gap, "+.3f", mark="*" if gap["significant"] else "") if gap else "")
    cells.append(f"{row['rounds']}, {row['epochs']}" if row["traffic"]["updates"] else "")
    return Row([*cells, *_byte_cells(row), _fewer(row, about), f"{row['seconds']:.0f}"], best=name == "sign")


def _byte_cells(row: Mapping[str, Any]) -> list[str]:
    sent = row["traffic"]
    every = [sum(sent[way][measure] for way in ("up", "down")) for measure in ("payload", "message")]
    update = [f"{sent['update'][measure]:,.0f}" for measure in ("payload", "message")]
    return [*update, *(f"{number / 1e3:,.1f}" for number in every)]


def _fewer(row: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    payload = row["traffic"]["update"]["payload"]
    if "lora" not in about["rows"] or not payload:
        return ""
    times = about["rows"]["lora"]["traffic"]["update"]["payload"] / payload
    return f"{times:,.0f}" if times >= 10 else f"{times:.1f}"


def _searches(about: Mapping[str, Any]) -> Table:
    rows = []
    for row in about["rows"].values():
        if (search := row["search"]) is not None:
            tried = ", ".join(
                f"{one['shared']:g}: {'failed' if one['score'] is None else format(one['score'], '.3f')}"
                for one in search["tried"]
            )
            edge = "the lowest or highest rate tried" if search["at-the-edge"] else ""
            rows.append(Row([row["title"], f"{search['chosen']['shared']:g}", tried, edge]))
    return Table(["", "rate", "score on others by rate", ""], rows, text=True)


def terminal_table(name: str, about: Mapping[str, Any]) -> TerminalTable:
    """The rows of one task.

    Args:
        name: Id of the task.
        about: Its figures, as in results.json.
    """
    main = about["main"]
    shown = TerminalTable(
        title=f"{name}: {main}, {count_of(about['users'], 'person', 'people')}, 95 % intervals"
    )
    heads = ("row", main, "difference", "update B", "message B", "all kB", "messages kB")
    for head in heads:
        shown.add_column(head, justify="left" if head == "row" else "right")
    for key, row in about["rows"].items():
        value, gap = row["metrics"][main], row.get("difference", {}).get(main)
        shown.add_row(
            key,
            f"{value['value']:.3f} ({value['low']:.3f}-{value['high']:.3f})",
            f"{gap['value']:+z.3f}{'*' if gap['significant'] else ' '}" if gap else "",
            *_byte_cells(row),
        )
    return shown


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) or "all" if isinstance(value, list) else str(value)
