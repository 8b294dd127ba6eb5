"""How far the newest run of a cloud has come, read from its events."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.job.events import EVENTS
from fedperfit.protocol.settings.forms import in_form
from fedperfit.protocol.system.files import finished_json_lines


@dataclass
class RunProgress:
    """The newest run in numbers; no name of a client is among them."""

    clients: int = 0
    """Clients that can take part."""
    asked: int = 0
    """Clients asked in the phase under way."""
    answered: int = 0
    """Those of them that have answered."""
    round: int = 0
    """Last finished round of training."""
    rounds: int = 0
    """Rounds of training in all."""
    admitted: int = 0
    """Updates admitted so far."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Replies dropped so far, by kind."""
    down: int = 0
    """Bytes of whole messages to edges, so far."""
    up: int = 0
    """Bytes of whole messages from edges, so far."""
    done: bool = False
    """Whether the run has come to its end."""


class _Event(TypedDict):
    event: str


class _Clients(TypedDict):
    clients: int


class _Reply(_Clients):
    replies: int


class _Round(TypedDict):
    round: int
    rounds: int
    admitted: int
    dropped: int
    kinds: NotRequired[dict[str, int]]
    down: int
    up: int


def newest_run(home: CloudHome) -> RunProgress | None:
    """Read how far the newest run has come; None before the first.

    Args:
        home: The cloud.

    Raises:
        InputError: A line of its events, other than an unfinished last one, is none; it is named.
    """
    files = sorted(home.runs.glob(f"*/{EVENTS}"), key=lambda path: path.stat().st_mtime)
    return _read(files[-1]) if files else None


def _read(path: Path) -> RunProgress:
    progress = RunProgress()
    for number, event in finished_json_lines(path):
        _add(progress, event, f"{path}, line {number}")
    return progress


def _add(progress: RunProgress, event: Any, place: str) -> None:
    kind = in_form(event, _Event, place)["event"]
    if kind == "start":
        progress.done = False
    elif kind == "connected":
        progress.clients = in_form(event, _Clients, place)["clients"]
    elif kind == "phase":
        progress.asked, progress.answered = in_form(event, _Clients, place)["clients"], 0
    elif kind == "reply":
        reply = in_form(event, _Reply, place)
        progress.asked, progress.answered = reply["clients"], reply["replies"]
    elif kind == "round":
        _add_round(progress, in_form(event, _Round, place))
    elif kind == "done":
        progress.done = True


def _add_round(progress: RunProgress, event: _Round) -> None:
    progress.round, progress.rounds = event["round"], event["rounds"]
    progress.admitted += event["admitted"]
    progress.dropped.update(event.get("kinds") or {"other": event["dropped"]})
    progress.down += event["down"]
    progress.up += event["up"]
