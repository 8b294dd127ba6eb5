"""How far a run has come, read from its events as they are written."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedperfit.cloud.job.events import EVENTS
from fedperfit.protocol.system.errors import MalformedFileError
from fedperfit.simulation.watch.forms import event_of

_LATEST = 12
"""Events that are kept for the list of the latest."""


@dataclass
class Phase:
    """One phase of a run."""

    clients: int
    """Clients that were asked for something."""
    answered: int
    """Those of them that have answered."""
    started: float
    """Time of its begin, in seconds since 1970."""
    ended: float | None = None
    """Time of its end; None before."""


@dataclass
class RunState:
    """What the events so far tell."""

    started: float | None = None
    """Time of the first event since the run was begun or resumed, in seconds since 1970; None before it."""
    last: float = 0.0
    """Time of the latest event."""
    done: bool = False
    """Whether the run has come to its end."""
    failure: str = ""
    """Why the run failed; empty where it did not."""
    phases: dict[str, Phase] = field(default_factory=dict)
    """Phases by name, in the order of their begin."""
    rounds: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    """Events of rounds by phase and number: the latest of each, as a resumed run may repeat one."""
    trials: list[dict[str, Any]] = field(default_factory=list)
    """Events of trials, in the order in which they were made."""
    work: dict[str, Any] = field(default_factory=dict)
    """Latest event that counts work done; empty where there is none."""
    figures: dict[str, float] = field(default_factory=dict)
    """Final figures by the path to each; empty before the end."""
    latest: list[dict[str, Any]] = field(default_factory=list)
    """The latest events, newest last."""

    def take(self, event: dict[str, Any]) -> None:
        """Take one more event."""
        kind, self.last = event["event"], float(event["time"])
        if kind == "start":
            self.started, self.done, self.failure, self.trials = self.last, False, "", []
        elif kind == "phase":
            self.phases[event["phase"]] = Phase(event["clients"], 0, self.last)
        elif kind == "reply" and event["phase"] in self.phases:
            self.phases[event["phase"]].answered = event["replies"]
        elif kind == "round":
            self.rounds.setdefault(event["phase"], {})[event["round"]] = event
            self._end(event["phase"], over=event["round"] >= event["rounds"])
        elif kind == "result":
            self._end(event["phase"], over=True)
        elif kind == "trial":
            self.trials.append(event)
        elif kind == "work":
            self.work = event
        elif kind == "figures":
            self.figures = event["figures"]
        elif kind == "done":
            self.done = True
        elif kind == "failed":
            self.failure = str(event["reason"])
        if kind not in ("reply", "work", "figures"):
            self.latest = [*self.latest, event][-_LATEST:]

    def _end(self, name: str, *, over: bool) -> None:
        if over and name in self.phases:
            self.phases[name].ended = self.last


class EventReader:
    """Reads the events of a folder once each; an unfinished line waits for its end."""

    def __init__(self, folder: Path) -> None:
        """Begin before the first event; folder: the run folder."""
        self.path, self.state = folder / EVENTS, RunState()
        self._first, self._read, self._lines = b"", 0, 0

    def news(self) -> RunState:
        """Read what was written since the last call, and return the state.

        Raises:
            MalformedFileError: Naming the first line that is no event; the next call begins there again.
        """
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._read or not self._same():  # the folder holds another run now
            self._first, self._read, self._lines, self.state = b"", 0, 0, RunState()
        if size > self._read:
            with self.path.open("rb") as file:
                file.seek(self._read)
                data = file.read(size - self._read)
            for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
                self._take(line, f"{self.path}, line {self._lines + 1}")
                self._first = self._first or line
                self._read, self._lines = self._read + len(line), self._lines + 1
        return self.state

    def _same(self) -> bool:
        """Whether the file begins as it did: the time of a run's first event is that of no other run."""
        if not self._first:
            return True
        with self.path.open("rb") as file:
            return file.read(len(self._first)) == self._first

    def _take(self, line: bytes, place: str) -> None:
        if not line.strip():
            return
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise MalformedFileError(f"{place}: no JSON") from None
        self.state.take(event_of(value, place))
