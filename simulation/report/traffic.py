"""The bytes of a run as tables: messages by phase, and what their payload is made of."""

from collections.abc import Iterable, Mapping
from typing import Any

from fedperfit.simulation.report.html import Row, Table

_KINDS = (
    "status",
    "pulls",
    "train",
    "directions",
    "personalize",
    "evaluate",
    "time",
    "history",
    "collective",
)
"""First words of the names of phases, in the order of a run."""
_STEPS = {
    "evaluate": ("base", "collective", "directions", "personal"),
    "history": ("fit", ""),
    "collective": ("train", "", "fit", "personal"),
}
"""Last words of such names, in the same order, where a phase has several."""
_PARTS = {
    "header": "shape and precision of a packed shift",
    "R": "directions of a shift's layers",
    "W": "its weights along them",
    "b": "its offsets",
    "basis": "the frozen basis, sent to each client once",
    "coordinates": "the collective shift in that basis",
    "update": "what a client would change, in that basis",
    "envelopes": "sealed shares of updates, for members of the committee",
    "sum": "a member's sum of such shares",
    "moments": "a summary of a client's preference pairs",
    "view": "the frame that probes are in, sent to each client once",
    "probes": "directions that are tried",
    "sums": "their losses and gradients over a client's pairs",
    "layer gradients": "how much a client's loss changes with each layer",
    "other": "what has none of these forms",
}
"""What the parts of a payload are, by their names in the ledger."""


def message_table(about: Mapping[str, Any]) -> Table:
    """Messages and bytes of each phase in the order of the run, of training round by round.

    Args:
        about: Sums of the ledger, with `rounds` and `phases`.
    """
    rows = []
    for phase, totals in in_order(about["phases"]):
        if phase == "train":
            rows += [_row(f"round {one['round']}", one) for one in about["rounds"] if one["round"]]
        else:
            rows.append(_row(phase, totals))
    head = ["phase", "messages down", "bytes down", "of it payload"]
    return Table([*head, "messages up", "bytes up", "of it payload"], rows)


def part_table(about: Mapping[str, Any]) -> Table:
    """What the payload of each phase that has one is made of; no rows in runs of earlier versions.

    Args:
        about: Sums of the ledger, with `phases`.
    """
    rows = []
    for phase, totals in in_order(about["phases"]):
        down, up = (totals[way].get("tensors", {}) for way in ("down", "up"))
        if down or up:
            rows.append(Row([phase, _listed(down), _listed(up)]))
    return Table(["phase", "payload down", "payload up"], rows, text=True)


def part_words(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names of the parts that a run sent, and what they are."""
    found = {
        name
        for totals in about["phases"].values()
        for way in ("down", "up")
        for name in totals[way].get("tensors", {})
    }
    return [(name, words) for name, words in _PARTS.items() if name in found]


def in_order(phases: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Phases by name and content, in the order of a run; history-2 comes before history-16."""
    return sorted(phases.items(), key=lambda entry: _place(entry[0]))


def _place(phase: str) -> tuple[int, int, int, str]:
    kind, *rest = phase.split("-")
    number = int(rest.pop(0)) if rest and rest[0].isdigit() else 0
    step, steps = "-".join(rest), _STEPS.get(kind, ())
    return (
        _KINDS.index(kind) if kind in _KINDS else len(_KINDS),
        number,
        steps.index(step) if step in steps else len(steps),
        phase,
    )


def _row(name: str, totals: Mapping[str, Mapping[str, int]]) -> Row:
    numbers = [totals[way][key] for way in ("down", "up") for key in ("messages", "message", "payload")]
    return Row([name, *(f"{number:,}" for number in numbers)])


def _listed(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}\N{NO-BREAK SPACE}{parts[name]:,}" for name in _known_first(parts)) or "none"


def _known_first(names: Iterable[str]) -> list[str]:
    places = {name: place for place, name in enumerate(_PARTS)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))
