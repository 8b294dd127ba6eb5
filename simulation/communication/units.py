"""Units of work of a study, each kept as one file when it is done: a row with one rate, or with one seed."""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from typing_extensions import TypedDict

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.scoring import score
from fedperfit.protocol.messages.ledger import Entry
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import TooFewClients
from fedperfit.protocol.tasks import task_by_name, task_id
from fedperfit.simulation.communication.ground import Ground, asked_of
from fedperfit.simulation.communication.rates import Rates, drawn_rates
from fedperfit.simulation.communication.row import Row, rows_by_name
from fedperfit.simulation.communication.settings import CommunicationSettings
from fedperfit.simulation.compare.search import goodness
from fedperfit.simulation.data.participants import Target
from fedperfit.simulation.report.bootstrap import Phase

DRAW, SEED = "draw", "seed"
"""Kinds of units: a rate scored on others, a training scored on targets."""
_WORK = "work"
"""Folder of the unit that is being worked on."""


@dataclass(frozen=True)
class Unit:
    """Work that is done in one go, and once."""

    task: str
    """Id of the task."""
    row: str
    kind: str
    """Kind of the unit, `DRAW` or `SEED`."""
    number: int
    """Number of the draw, or the seed."""

    @property
    def file(self) -> Path:
        """Path of the result in the study's folder."""
        return Path("units") / self.task / self.row / f"{self.kind}-{self.number}.json"

    def __str__(self) -> str:
        return f"{self.task} {self.row} {self.kind} {self.number}"


def plan(ground: Ground, rows: dict[str, type[Row]]) -> Iterator[Unit]:
    """Yield all units of a study, row by row: draws first, which the training with each seed waits for.

    Args:
        ground: Settings of the study.
        rows: Rows by name.
    """
    settings = ground.settings
    for task in map(task_id, settings.tasks):
        for name, row in rows.items():
            if row.searched:
                yield from (Unit(task, name, DRAW, n) for n in range(settings.draws))
            yield from (Unit(task, name, SEED, seed) for seed in settings.seeds)


class Draw(TypedDict):
    """Result of a rate that was tried on others."""

    rates: Rates
    questions: int
    score: float | None
    """Mean over the questions; None where the cloud refused every update."""


class Size(TypedDict):
    """Bytes of a message, or of several."""

    payload: int | float
    message: int | float


class Traffic(TypedDict):
    """Messages of a training."""

    updates: int
    update: Size
    """Bytes of an update, the median."""
    up: Size
    down: Size


class Training(TypedDict):
    """Result of a training with one seed."""

    rates: Rates
    people: Phase
    """Metric sums of the people asked."""
    traffic: Traffic
    seconds: float


@dataclass(frozen=True)
class Given:
    """What a unit is done from."""

    unit: Unit
    rates: Rates
    """Rates of its training."""


class UnitWorker:
    """Worker of a study, with its rows, people and base model."""

    def __init__(self, settings: CommunicationSettings, folder: Path) -> None:
        """Find the rows; everything else is loaded for the first unit.

        Args:
            settings: Settings of the study.
            folder: Folder for what the worker works with.
        """
        self._rows, self._ground = rows_by_name(), Ground(folder, settings)
        self._work = folder / _WORK

    def do(self, payload: Given) -> Iterator[dict[str, Any]]:
        """Do a unit, and yield its result.

        Args:
            payload: The unit and its rates.

        Raises:
            TooFewClients: No round of a training on all clients had an update.
        """
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        started = time.perf_counter()
        unit = payload.unit
        done = (_draw if unit.kind == DRAW else _training)(
            self._work, self._ground, self._rows[unit.row], unit, payload.rates
        )
        yield done | {"seconds": time.perf_counter() - started}
        shutil.rmtree(self._work, ignore_errors=True)


def given(folder: Path, settings: CommunicationSettings, unit: Unit) -> Given:
    """Return what a unit is done from.

    Args:
        folder: Folder of the study; the unit's draws are on file if it is no draw.
        settings: Settings of the study.
        unit: The unit.
    """
    rates = drawn_rates(settings)
    if unit.kind == DRAW:
        return Given(unit, rates[unit.number])
    searched = rows_by_name()[unit.row].searched
    return Given(unit, best_rates(folder, unit, settings.draws) if searched else rates[0])


def needs(settings: CommunicationSettings, unit: Unit) -> list[Unit]:
    """List the draws that a training waits for.

    Args:
        settings: Settings of the study.
        unit: Any unit.
    """
    draws = settings.draws if unit.kind == SEED and rows_by_name()[unit.row].searched else 0
    return [Unit(unit.task, unit.row, DRAW, number) for number in range(draws)]


def best_rates(folder: Path, unit: Unit, draws: int) -> Rates:
    """Return the rates of the draw with the highest score, the first of equals.

    Args:
        folder: Folder of the study.
        unit: Any unit of the row.
        draws: Number of draws.
    """
    log = [read_draw(folder, unit.task, unit.row, n) for n in range(draws)]
    top = max(log, key=lambda draw: -float("inf") if draw["score"] is None else draw["score"])
    return top["rates"]


def read_draw(folder: Path, task: str, row: str, number: int) -> Draw:
    """Read a finished draw; raises InputError, naming the file, where it is none.

    Args:
        folder: Folder of the study.
        task: Id of the task.
        row: Name of the row.
        number: Number of the draw.
    """
    return read_form(folder / Unit(task, row, DRAW, number).file, Draw)


def _draw(folder: Path, ground: Ground, row: type[Row], unit: Unit, rates: Rates) -> dict[str, Any]:
    clients, targets = ground.search(unit.task)
    asked = sum(len(target.questions) for target in targets)
    result = {"rates": asdict(rates), "questions": asked, "score": None}
    try:
        _, answers = _trained(folder, ground, row, unit, ground.settings.seeds[0], rates, clients, targets)
    except TooFewClients:
        return result  # the cloud refused every update: the rate is far too high
    task = task_by_name(unit.task)
    total = sum(
        goodness(task, given, target.golds)[0] for given, target in zip(answers, targets, strict=True)
    )
    return result | {"score": total / asked}


def _training(folder: Path, ground: Ground, row: type[Row], unit: Unit, rates: Rates) -> dict[str, Any]:
    task = task_by_name(unit.task)
    clients, targets = ground.training(unit.task)
    entries, answers = _trained(folder, ground, row, unit, unit.number, rates, clients, targets)
    people = {
        target.history.name: {"items": len(given), "metrics": score(task, given, target.golds)}
        for given, target in zip(answers, targets, strict=True)
    }
    return {"rates": asdict(rates), "people": people, "traffic": traffic(entries)}


def _trained(
    folder: Path,
    ground: Ground,
    row: type[Row],
    unit: Unit,
    seed: int,
    rates: Rates,
    clients: Sequence[History],
    targets: Sequence[Target],
) -> tuple[list[Entry], list[list[str]]]:
    trained = row(ground.context(unit.task, seed), ground.settings, rates)
    entries = trained.learn(clients, folder)
    return entries, trained.answer(asked_of(targets))


def traffic(entries: Sequence[Entry]) -> dict[str, Any]:
    """Sum up a ledger.

    Args:
        entries: Sizes of all messages of a training.

    Returns:
        Number of updates; bytes of an update (median), and of everything up and down: payload, and whole
        messages as Flower serialises them.
    """
    up = [entry for entry in entries if entry.direction == "up"]
    down = [entry for entry in entries if entry.direction == "down"]
    updates = [entry for entry in up if entry.round]  # what a basis is made of comes before the rounds
    return {
        "updates": len(updates),
        "update": {
            "payload": median(entry.payload for entry in updates) if updates else 0,
            "message": median(entry.message for entry in updates) if updates else 0,
        },
        **{
            name: {
                "payload": sum(entry.payload for entry in some),
                "message": sum(entry.message for entry in some),
            }
            for name, some in (("up", up), ("down", down))
        },
    }
