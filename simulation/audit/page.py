"""An audit's report.html, for somebody who has to answer for people's data, and its table on a terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table as TerminalTable

from fedperfit.protocol.system.files import read_json, write_atomic
from fedperfit.simulation.audit.attack import Role
from fedperfit.simulation.audit.pictures import areas
from fedperfit.simulation.audit.result import RESULT
from fedperfit.simulation.report.html import Noted, Row, Table, estimate, render
from fedperfit.simulation.report.svg import Picture

REPORT = "report.html"
_NAMES = {
    "auc": "AUC",
    "tpr-0.01": "hits at 1 % false alarms",
    "tpr-0.001": "at .1 %",
    "first": "named first",
    "epsilon": "epsilon, estimated",
    "epsilon-bound": "at least (95 %)",
}
"""Heads of columns by the name of the figure."""
_SLACK = 0.05
"""Area by which a null control may lie beyond guessing: intervals over few users are too narrow."""


def write_page(folder: Path, result: Mapping[str, Any]) -> None:
    """Write `report.html` of an audit's folder.

    Args:
        folder: Folder of the audit.
        result: The figures, as in result.json.
    """
    html = render(
        "audit.html",
        title="fedperfit audit",
        setting={name: _said(value) for name, value in result["setting"].items()},
        attacks=[_attack(attack) for attack in result["attacks"].values()],
        settings={name: _said(value) for name, value in result["settings"].items()},
    )
    write_atomic(folder / REPORT, html.encode())


def pictures(folder: Path) -> dict[str, Picture]:
    """Return the plots of a finished audit, by attack."""
    attacks = read_json(folder / RESULT)["attacks"]
    return {about["title"]: areas(about["title"], about["conditions"]) for about in attacks.values()}


def finding(attack: Mapping[str, Any]) -> str:
    """Say in a sentence what an attack found, and whether its controls bear it out."""
    by_role: dict[Role, list[tuple[str, Mapping[str, Any]]]] = {role: [] for role in Role}
    for name, about in attack["conditions"].items():
        by_role[Role(about["role"])].append((name, about))
    blind = [name for name, about in by_role[Role.POSITIVE] if about["auc"]["low"] <= 0.5]
    seeing = [name for name, about in by_role[Role.NULL] if about["auc"]["low"] > 0.5 + _SLACK]
    if blind or seeing:
        return f"Proves nothing: a control fails ({'; '.join(blind + seeing)})."
    promised = [about for _, about in by_role[Role.ATTACK] if "promise" in about]
    if promised:
        return _kept(promised)
    telling = [name for name, about in by_role[Role.ATTACK] if about["auc"]["low"] > 0.5]
    if not telling:
        return "Not shown to tell more than guessing, as far as the intervals reach."
    rest = len(by_role[Role.ATTACK]) - len(telling)
    return f"Tells more than guessing: {'; '.join(telling)}." + (" Not in the other cases." if rest else "")


def _kept(promised: Sequence[Mapping[str, Any]]) -> str:
    broken = [f"{about['promise']:g}" for about in promised if about["surely-above"] > about["promise"]]
    if broken:
        return f"Breaks its promise of epsilon {', '.join(dict.fromkeys(broken))}."
    off = max(abs(about["epsilon"]["value"] / about["promise"] - 1) for about in promised)
    return f"Keeps its promises: no bound is surely above one, and estimates are within {off:.0%} of them."


def terminal_table(attack: Mapping[str, Any]) -> TerminalTable:
    """The figures of one attack."""
    shown = TerminalTable(title=attack["title"])
    keys = _keys(attack)
    for head in ("", "", *(_NAMES[key] for key in keys)):
        shown.add_column(head, justify="right" if head else "left")
    for name, about in attack["conditions"].items():
        cells = [_plain(about.get(key)) for key in keys]
        shown.add_row(name, "" if about["role"] == Role.ATTACK else about["role"], *cells)
    return shown


def _attack(attack: Mapping[str, Any]) -> dict[str, Any]:
    conditions = attack["conditions"]
    return {
        **{key: attack[key] for key in ("title", "meaning")},
        "finding": finding(attack),
        "table": _table(attack),
        "picture": areas(attack["title"], conditions),
    }


def _table(attack: Mapping[str, Any]) -> Table:
    keys = _keys(attack)
    rows = []
    for name, about in attack["conditions"].items():
        cells: list[str | Noted] = [name, "" if about["role"] == Role.ATTACK else about["role"]]
        cells += [str(about["users"]), f"{about['trials']:,}"]
        cells += [estimate(about[key]) if about.get(key) else "" for key in keys]
        rows.append(Row(cells, best=about["role"] == Role.ATTACK))
    return Table(["", "", "users", "trials", *(_NAMES[key] for key in keys)], rows)


def _keys(attack: Mapping[str, Any]) -> list[str]:
    """List the figures that any condition of an attack has."""
    return [key for key in _NAMES if any(about.get(key) for about in attack["conditions"].values())]


def _plain(about: Mapping[str, float] | None) -> str:
    return f"{about['value']:.3f} ({about['low']:.3f}-{about['high']:.3f})" if about else ""


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
