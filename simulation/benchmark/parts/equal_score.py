"""What a person costs at equal score: passes over their items, and seconds.

On the people of a finished run who are new to it, with so many of their latest items each. PerFit as the run
would fit it, a free shift above the collective one for `personal-epochs`, sets the score: the share of their
held-out questions that are answered as they answered. Every other way is tried with more and more passes,
each from the start since rates fall over a fit, and with several rates, of which the best on these very
people counts for the peers.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from fedperfit.edge.agent.history import History
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.people.whitened import PASSES, Whitened, fit_under_prior
from fedperfit.edge.engine.scoring import score
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.edge.fitting.form import personal_shift
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError, count_of
from fedperfit.protocol.tasks import PromptForm
from fedperfit.simulation.benchmark import lora, pyreft_peer
from fedperfit.simulation.benchmark.record import Record
from fedperfit.simulation.benchmark.workload import LENGTHS, Workload
from fedperfit.simulation.cluster.scratch import scratch
from fedperfit.simulation.compare.building_blocks.adapters import answer, fit_adapter
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.report.bootstrap import LOWER_IS_BETTER, Phase, Sample
from fedperfit.simulation.run.prior_run import open_prior_run
from fedperfit.simulation.run.settings import RunSettings

ITEMS = 16
"""Latest items of each person that are fitted."""
PERFIT = "PerFit"
"""Name of the way that sets the score."""
PEER_PASSES = (10, 20)
"""Passes that pyreft and LoRA are given."""
RATES = (3e-3, 1e-2, 3e-2)
"""Learning rates that pyreft and LoRA are tried with."""
MOST = 2 * 7 + 2 * len(PEER_PASSES) * len(RATES)
"""Measurements of a run with ten epochs."""


@dataclass(frozen=True)
class Ground:
    """A finished run, with the people who are fitted."""

    context: MethodContext
    settings: RunSettings
    release: OpenedRelease
    people: Sequence[History]
    examples: Sequence[Sequence[Example]]
    """Training pairs of each person as token ids."""

    @classmethod
    def of(cls, run: Path, users: int, folder: Path) -> "Ground":
        """Open a run's release and the histories of people who took part in none of its rounds.

        Args:
            run: Folder of a finished run with a prior over people.
            users: Number of people at most.
            folder: Folder for what methods keep.

        Raises:
            InputError: The folder holds no such run, or nobody new.
        """
        opened = open_prior_run(run)
        settings, base = opened.settings, opened.base
        able = [one for one in opened.clients if one.name.startswith("new-") and len(one.items) >= ITEMS]
        new = able[:users]
        if not new:
            raise InputError(f"{run}: nobody new has {ITEMS} items and held-out questions")
        form = PromptForm(settings.prompt_form)
        items = ItemCache(base)
        context = MethodContext(base, new[0].task, form, settings.seed, items, folder, settings.batch_size)
        examples = [context.encode(one.pairs(form, ITEMS)) for one in new]
        return cls(context, settings, opened.release, new, examples)

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds of the processor where that does the work, so that other load does not count."""
        return time.process_time if self._device.type == "cpu" else time.perf_counter

    @property
    def frozen(self) -> Shift:
        """The collective shift, which does not change."""
        return self.release.frozen(self.context.base)

    def start(self, user: int) -> PersonalShift:
        """Return one person's free shift, which changes nothing yet."""
        shape = replace(self.release.header.shape, rank=self.settings.personal().rank)
        return PersonalShift.start(shape, seed=self.settings.seed + user)

    def score(self, answers: Callable[[int, list[Any]], list[str]]) -> float:
        """Score the answers to everyone's questions by the task's first metric, pooled over people.

        Args:
            answers: Answers the prompts of one person, given by number.
        """
        task, phase = self.context.task, Phase()
        for user, one in enumerate(self.people):
            given = answers(user, [pair.prompt for pair in one.asked(self.context.form)])
            golds = [question["gold"] for question in one.judged]
            phase[one.name] = {"items": len(golds), "metrics": score(task, given, golds)}
        sample = Sample.of(task, phase)
        return float(sample.metrics(np.ones((1, len(sample.users))))[task.metrics[0]][0])

    def under(self, shared: Sequence[Shift], own: Sequence[Shift]) -> float:
        """Score the answers under shifts.

        Args:
            shared: Shifts that act for all.
            own: Everyone's own, acting after them.
        """

        def answers(user: int, prompts: list[Any]) -> list[str]:
            return self.context.answer(prompts, Stack(shared, Slab.of([own[user]], self._device), False))

        return self.score(answers)

    @property
    def _device(self) -> torch.device:
        return self.context.base.device


Way = Callable[[Ground, int, float], tuple[float, float]]
"""Fits all with so many passes and a rate; returns the seconds a person took, and the score."""


def free(ground: Ground, passes: int, rate: float) -> tuple[float, float]:
    """PerFit: a free shift above the collective one."""
    training = ground.settings.replace(personal_epochs=passes, personal_learning_rate=rate)
    jobs = [FitJob(ground.start(user), examples, str(user)) for user, examples in enumerate(ground.examples)]
    seconds = _seconds(
        lambda cache: fit(jobs, training.personal_training(), cache, frozen=[ground.frozen], decay_rate=True),
        ground,
    )
    return seconds, ground.under([ground.frozen], [job.shift for job in jobs])


def prior(ground: Ground, passes: int, rate: float) -> tuple[float, float]:
    """Find the likeliest coordinates under the prior, which have no rate."""
    assert ground.release.people is not None
    fitted = [Whitened.start(ground.release.people) for _ in ground.people]
    seconds = _seconds(
        lambda cache: fit_under_prior(fitted, ground.examples, cache, frozen=[ground.frozen], passes=passes),
        ground,
    )
    return seconds, ground.under([ground.frozen], [personal_shift(one) for one in fitted])


def pyreft(ground: Ground, passes: int, rate: float) -> tuple[float, float]:
    """Train pyreft's LoReFT on the base model, and answer under what it made."""
    settings = ground.settings.replace(personal_epochs=passes, personal_learning_rate=rate)
    workload = Workload(lengths=LENGTHS["LaMP_2M"], users=len(ground.people), items=ITEMS, settings=settings)
    base, shape = ground.context.base, ground.start(0).shape
    with scratch() as folder, redirect_stderr(StringIO()):
        now = ground.clock
        started = now()
        try:
            made = [
                pyreft_peer.fitted(base, examples, workload, user, folder)
                for user, examples in enumerate(ground.examples)
            ]
        finally:
            base.model.eval()
        seconds = (now() - started) / len(made)
    return seconds, ground.under([], [pyreft_peer.as_shift(model, shape) for model in made])


def peft_lora(ground: Ground, passes: int, rate: float) -> tuple[float, float]:
    """Train PEFT's LoRA, r = 8 on q and v, on the base model, and answer with it."""
    shape: dict[str, Any] = {"rank": lora.RANK, "modules": ["q_proj", "v_proj"]}
    pairs = [one.pairs(ground.context.form, ITEMS) for one in ground.people]
    now = ground.clock
    started = now()
    made = [
        fit_adapter(ground.context, own, epochs=passes, learning_rate=rate, name=one.name, **shape)
        for one, own in zip(ground.people, pairs, strict=True)
    ]
    seconds = (now() - started) / len(made)
    return seconds, ground.score(lambda user, prompts: answer(ground.context, made[user], prompts, **shape))


def run(folder: Path, users: int, threads: int, record: Record) -> list[dict[str, Any]]:
    """Fit everyone in every way.

    Args:
        folder: Folder of a finished run with a prior over people.
        users: Number of people at most.
        threads: CPU threads.
        record: Measurements on file.

    Returns:
        A row per way, with its best score at each number of passes, and the first that reaches PerFit's.
    """
    torch.set_num_threads(threads)
    with scratch() as kept:
        ground = Ground.of(folder, users, kept)
        rate, epochs = ground.settings.personal_learning_rate, ground.settings.personal_epochs
        ways: dict[str, tuple[Way, Sequence[int], Sequence[float]]] = {
            PERFIT: (free, _ladder(epochs), [rate]),
            "under the prior": (prior, _ladder(PASSES), [0.0]),
            "pyreft": (pyreft, PEER_PASSES, RATES),
            "LoRA r=8": (peft_lora, PEER_PASSES, RATES),
        }
        free(ground, 1, rate)  # the first fit of a process is unlike the others
        rows = [_row(ground, name, *way, record) for name, way in ways.items()]
    metric = ground.context.task.metrics[0]
    wanted = rows[0]["tried"][-1]["score"]
    for row in rows:
        good = [one for one in row["tried"] if not _worse(metric, one["score"], wanted)]
        row |= {"reached": good[0] if good else None, "wanted": wanted}
        row |= {"metric": metric, "people": len(ground.people)}
    return rows


def _row(
    ground: Ground, name: str, way: Way, passes: Sequence[int], rates: Sequence[float], record: Record
) -> dict[str, Any]:
    """Try one way; of the rates the best at each number of passes is kept."""
    best = min if ground.context.task.metrics[0] in LOWER_IS_BETTER else max
    tried = []
    for number in passes:
        taken = [
            record.measure(f"equal-score/{name}/{number}/{rate:g}", partial(_take, ground, way, number, rate))
            for rate in rates
        ]
        if errors := [one["error"] for one in taken if "error" in one]:
            return {"way": name, "tried": [], "error": errors[0]}
        tried.append(best(taken, key=lambda one: float(one["score"])))
    return {"way": name, "tried": tried}


def _worse(metric: str, score: float, wanted: float) -> bool:
    return score > wanted if metric in LOWER_IS_BETTER else score < wanted


def _take(ground: Ground, way: Way, passes: int, rate: float) -> dict[str, Any]:
    seconds, scored = way(ground, passes, rate)
    return {"passes": passes, "rate": rate, "seconds_per_user": seconds, "score": scored}


def _seconds(work: Callable[[ItemCache], Any], ground: Ground) -> float:
    """Seconds a person takes, with what is prepared of their items."""
    cache, now = ItemCache(ground.context.base), ground.clock
    started = now()
    work(cache)
    return (now() - started) / len(ground.people)


def _ladder(most: int) -> list[int]:
    """Numbers of passes up to the most: all up to four, then every other."""
    return sorted({*range(1, min(most, 4) + 1), *range(6, most, 2), most})


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Tabulate each way at the first number of passes that is as good as PerFit, or at its last."""
    about = rows[0]
    people = count_of(about["people"], "person", "people")
    title = f"{people} of {ITEMS} items as right as with PerFit: {about['metric']} "
    printed = Table(title=f"{title}{about['wanted']:.3f}")
    for name in ("way", "passes", "s / person", "score", "PerFit takes"):
        printed.add_column(name, justify="left" if name == "way" else "right", no_wrap=True)
    whole = about["tried"][-1]["seconds_per_user"]
    for row in rows:
        printed.add_row(row["way"], *_cells(row, whole))
    return printed


def _cells(row: Mapping[str, Any], whole: float) -> list[str]:
    if "error" in row:
        return ["—", "—", "[dim]not measured[/dim]", "—"]
    last = row["tried"][-1]
    shown = last if row["way"] == PERFIT or row["reached"] is None else row["reached"]
    passes = f"not in {last['passes']}" if row["reached"] is None else str(shown["passes"])
    ratio = f"{whole / shown['seconds_per_user']:.2f}x"
    return [passes, f"{shown['seconds_per_user']:.3f}", f"{shown['score']:.3f}", ratio]
