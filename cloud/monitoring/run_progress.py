"""How far the newest run of a cloud has come, read from its events."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.job.events import EVENTS
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import json_lines


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


def newest_run(home: CloudHome) -> RunProgress | None:
    """Read how far the newest run has come; None before the first.

    Args:
        home: The cloud.
    """
    files = sorted(home.runs.glob(f"*/{EVENTS}"), key=lambda path: path.stat().st_mtime)
    return _read(files[-1]) if files else None


def _read(path: Path) -> RunProgress:
    progress = RunProgress()
    for _, event in json_lines(path):
        if not isinstance(event, InputError):  # the last line may be unfinished
            _add(progress, event)
    return progress


def _add(progress: RunProgress, event: dict[str, Any]) -> None:
    kind = event["event"]
    if kind == "start":
        progress.done = False
    elif kind == "connected":
        progress.clients = event["clients"]
    elif kind == "phase":
        progress.asked, progress.answered = event["clients"], 0
    elif kind == "reply":
        progress.asked, progress.answered = event["clients"], event["replies"]
    elif kind == "round":
        progress.round, progress.rounds = event["round"], event["rounds"]
        progress.admitted += event["admitted"]
        progress.dropped.update(event.get("kinds") or {"other": event["dropped"]})
        progress.down += event["down"]
        progress.up += event["up"]
    elif kind == "done":
        progress.done = True
