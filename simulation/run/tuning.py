"""Learning rate and epochs chosen on validation data: histories of others, never a target's question.

Each of a few others fits a personal shift on the older three quarters of its history and is scored on the
rest: on the base model, or on the collective shift of a finished run. Some took part in that run's rounds, so
that its shift knows their items a little already.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fedperfit.cloud.job.events import EVENTS, OnEvent, Progress, recording
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.edge.agent.agent import Agent, Result, evaluate, personalize
from fedperfit.edge.agent.history import read_history, write_history
from fedperfit.edge.agent.outcome import Outcome
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.paths.check import load_checked
from fedperfit.protocol.messages.settings import Stage
from fedperfit.protocol.model.base_model import BaseModel, read_card
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json_lines, write_atomic, write_json
from fedperfit.protocol.tasks import AnswerKind
from fedperfit.protocol.tasks.metrics import guiding_sum
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation.client_app import CLIENTS
from fedperfit.simulation.cluster.cluster import ClusterRequest
from fedperfit.simulation.cluster.folders import everywhere
from fedperfit.simulation.cluster.pool import workers
from fedperfit.simulation.cluster.scratch import scratch
from fedperfit.simulation.run.clients import OTHERS, prepare_clients
from fedperfit.simulation.run.settings import RunSettings, TuneSettings
from fedperfit.simulation.study_folder import LOCK, TUNED_ON, check_begun, check_finished, check_new

VALIDATION_SHARE = 0.25
"""Share of a history, its latest items, that becomes questions."""


@dataclass(frozen=True)
class Trial:
    """A learning rate and a number of epochs, and the score they reached."""

    learning_rate: float
    epochs: int
    score: float
    """Share of validation items answered right (categories, ratings), or mean ROUGE-1."""
    without: float
    """Score without a personal shift: of the base model, or with the collective shift."""


@dataclass(frozen=True)
class Tried:
    """What is tried: a learning rate and a number of epochs; without epochs, no personal shift."""

    learning_rate: float = 0.0
    epochs: int = 0


class TuningWorker:
    """Worker of a tuning, with the clients and the base model."""

    def __init__(self, settings: TuneSettings, release: bytes | None, folder: Path) -> None:
        """Prepare the clients, and load the model.

        Args:
            settings: Settings of the run to tune for.
            release: Release on which personal shifts are fitted; None fits them on the base model alone.
            folder: Folder for the clients' folders.
        """
        base = load_checked(settings.base_model, device=settings.device, dtype=settings.dtype)
        self._settings, self._items = settings, ItemCache(base)
        self._packed = _nothing_shared(settings, base) if release is None else release
        roster = prepare_clients(settings, folder)
        others = [index for index, about in enumerate(roster.values()) if about["group"] == OTHERS]
        self._agents = []
        for index in others[: settings.users]:
            _hold_out(folder / CLIENTS / str(index))
            self._agents.append(Agent(folder / CLIENTS / str(index), base, self._items))

    def do(self, payload: Tried) -> Iterator[float]:
        """Fit the clients' personal shifts, and yield the score that they reach.

        Args:
            payload: Rate and epochs of the fits.
        """
        settings, stage = self._settings, Stage.COLLECTIVE
        if payload.epochs:
            stage, training = Stage.PERSONAL, settings.personal_training()
            training = training.replace(learning_rate=payload.learning_rate, epochs=payload.epochs)
            personal = settings.personal("tuning")
            _succeeded(personalize(self._agents, self._packed, personal, training, self._items))
        yield _score(self._agents, self._packed, settings, stage)


def settings_of_run(run: Path, changes: Mapping[str, Any]) -> TuneSettings:
    """Take the settings of a finished run for a tuning.

    Args:
        run: Folder of the run.
        changes: Settings that replace the run's, by key.

    Raises:
        InputError: The folder holds no such run.
        SettingError: A key is unknown, or a value is not allowed.
    """
    check_finished(run)
    theirs = RunSettings.from_file(run / SETTINGS)
    settings = TuneSettings.from_flat({**theirs.to_flat(), **changes})
    task = read_release(run / FILE_NAME).header.task
    if task != settings.task_id:
        raise InputError(f"{run}: its release is for task {task}, not {settings.task_id}")
    return settings


def tune(
    settings: TuneSettings,
    release: bytes | None = None,
    request: ClusterRequest | None = None,
    known: Sequence[Trial] = (),
) -> Iterator[Trial]:
    """Try every rate with every number of epochs, on the first others of the run's data.

    Args:
        settings: Settings of the run to tune for, and what to try.
        release: Release on which personal shifts are fitted; None fits them on the base model alone.
        request: Workers on a cluster that do the work; None is this process.
        known: Trials that are not made again.

    Yields:
        Trials, as they are made.

    Raises:
        InputError: Data is missing or broken, or a history cannot be fitted.
    """
    nothing, without = Tried(), 0.0
    before = {Tried(trial.learning_rate, trial.epochs) for trial in known}
    wanted = [Tried(rate, count) for count in settings.epochs for rate in settings.rates]
    left = [tried for tried in wanted if tried not in before]
    if not left:
        return
    make = partial(TuningWorker, everywhere(settings), release)
    with scratch() as folder, workers(request, make, folder) as hands:
        scores = hands.work(
            [nothing, *left], lambda tried: tried, needs=lambda tried: [nothing] if tried.epochs else []
        )
        for tried, score in scores:
            if tried == nothing:
                without = score
            else:
                yield Trial(tried.learning_rate, tried.epochs, score, without)


def begin(folder: Path, settings: TuneSettings, release: bytes | None = None) -> None:
    """Make the folder of a new tuning.

    Args:
        folder: Folder to make; empty or not there.
        settings: Settings of the run to tune for, and what to try.
        release: Release on which personal shifts are fitted; None fits them on the base model alone.

    Raises:
        InputError: The folder is not empty, or the settings do not fit the model.
    """
    check_new(folder, resumable=True, beside=TUNED_ON)
    settings.check(read_card(settings.base_model))
    write_atomic(folder / TUNED_ON, release or b"")
    write_json(folder / SETTINGS, settings.to_flat())


def run_tuning(folder: Path, on_event: OnEvent, request: ClusterRequest | None = None) -> list[Trial]:
    """Try everything (see `tune`) that the tuning of a folder has not tried yet, with events on file.

    Args:
        folder: Folder of the tuning, as `begin` made it.
        on_event: Called with every event after it is appended to the folder's events, and first with the
            trials of an earlier process.
        request: Workers on a cluster that do the work; None is this process.

    Returns:
        The trials, in the order of the settings.

    Raises:
        InputError: The folder holds no tuning, or another process works on it, data is missing or broken, or
            a history cannot be fitted.
    """
    settings = TuneSettings.from_file(check_begun(folder, "tuning") / SETTINGS)
    try:
        with FileLock(folder / LOCK, timeout=0.2), recording(folder, on_event) as record:
            return _tried(folder, settings, on_event, record, request)
    except Timeout:
        raise InputError(f"{folder}: another process works on this tuning") from None


def _tried(
    folder: Path, settings: TuneSettings, on_event: OnEvent, record: Progress, request: ClusterRequest | None
) -> list[Trial]:
    total = len(settings.rates) * len(settings.epochs)
    events = read_json_lines(folder / EVENTS) if (folder / EVENTS).exists() else []
    record("start", {"run": str(folder), "total": total})
    trials = []
    for event in events:
        if event["event"] == "trial":
            on_event(event)
            trials.append(Trial(event["learning-rate"], event["epochs"], event["score"], event["without"]))
    release = (folder / TUNED_ON).read_bytes() or None
    for trial in tune(settings, release, request, known=tuple(trials)):
        trials.append(trial)
        figures = {"score": trial.score, "without": trial.without}
        tried = {"learning-rate": trial.learning_rate, "epochs": trial.epochs}
        record("trial", {"done": len(trials), "total": total, **tried, **figures})
    trials.sort(
        key=lambda trial: (settings.epochs.index(trial.epochs), settings.rates.index(trial.learning_rate))
    )
    best = max(trials, key=lambda trial: trial.score)
    figures = {"score": best.score, "without": best.without, "epochs": float(best.epochs)}
    record("figures", {"figures": {"learning-rate": best.learning_rate, **figures}})
    record("done", {})
    return trials


def _nothing_shared(settings: RunSettings, base: BaseModel) -> bytes:
    shape = settings.shape(base.card)
    header = ShiftHeader(shape, settings.task_id, base.card.fingerprint, 0)
    return pack(Shift.identity(shape, seed=settings.seed), header)


def _hold_out(folder: Path) -> None:
    """Turn the latest quarter of a client's items into its questions."""
    history = read_history(folder)
    count = max(1, round(len(history.items) * VALIDATION_SHARE))
    held = [
        {"id": str(number), "input": history.task.question(item), "gold": str(item[history.task.answer])}
        for number, item in enumerate(history.items[-count:])
    ]
    write_history(folder, replace(history, items=history.items[:-count], answered=[], questions=held))


def _score(agents: list[Agent], packed: bytes, settings: RunSettings, stage: Stage) -> float:
    outcomes = _succeeded(evaluate(agents, packed, settings.evaluation(stage, "tuning"), agents[0].items))
    task = agents[0].history.task
    key = guiding_sum(task.metrics)[0] if task.kind is AnswerKind.TEXT else "correct"
    total = sum(value for o in outcomes if isinstance(value := o.metrics[key], float))
    return total / sum(outcome.items for outcome in outcomes)


def _succeeded(results: Iterator[Result]) -> list[Outcome]:
    """Return the outcomes; the first error is raised."""
    outcomes = []
    for _, result in results:
        if isinstance(result, InputError):
            raise result
        outcomes.append(result)
    return outcomes
