"""Runs against others over the same people: differences phase by phase, paired over people.

Several pairs of runs, as of several seeds, are pooled: all their people count alike.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.table import Table

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Task, task_by_name
from fedperfit.simulation.report.bootstrap import LOWER_IS_BETTER, Bootstrap, Sample
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.run.summary import limit_samples, read_samples, run_settings
from fedperfit.simulation.world.build import read_bounds


@dataclass(frozen=True)
class Difference:
    """How two runs, or several pairs of them, score in one phase."""

    phase: str
    """Name of the phase, as in the run folder's `results/`."""
    people: int
    """People who were asked in both."""
    value: float
    """Score of the run."""
    other: float
    """Score of the other run."""
    interval: tuple[float, float]
    """95 % interval of value - other, people resampled."""
    limit: float | None = None
    """Best possible score with these items, where it is known."""
    share: tuple[float, float, float] | None = None
    """Share of the way from the other run to the limit, and its 95 % interval; None where there is no way."""


def differences(pairs: Sequence[tuple[Path, Path]]) -> tuple[str, list[Difference]]:
    """Compare runs with others over the same people, where one file may word a task otherwise than another.

    Args:
        pairs: Folders of finished runs, each with that of the run it is compared with.

    Returns:
        The task's main metric, and a row for each phase that all runs have, in the order of a run.

    Raises:
        InputError: The runs of a pair are not over the same people, the pairs are of several tasks, or no
            phase is in all runs.
    """
    read = [_Run.read(folder) for pair in pairs for folder in pair]
    if len({_scored(run.task) for run in read}) > 1:
        raise InputError(f"the runs are of several tasks: {', '.join(sorted({run.task.id for run in read}))}")
    runs, others = read[::2], read[1::2]
    for run, other in zip(runs, others, strict=True):
        run.check_people(other)
    shared = set.intersection(*(set(run.samples) for run in read))
    if not shared:
        raise InputError("no phase is in all of these runs")
    bootstrap = Bootstrap(runs[0].settings.seed, runs[0].settings.bootstrap_samples)
    main = runs[0].task.metrics[0]
    return main, [_difference(bootstrap, main, phase, runs, others) for phase in sorted(shared, key=_place)]


def _scored(task: Task) -> tuple[Hashable, ...]:
    """What two tasks must share for their scores to be compared."""
    return task.name, task.kind, task.labels, task.metrics


def differences_table(main: str, rows: Sequence[Difference]) -> Table:
    """Return the rows for the terminal.

    Args:
        main: Name of the metric.
        rows: What `differences` returned.
    """
    better = "lower" if main in LOWER_IS_BETTER else "higher"
    table = Table(title=f"{main} ({better} is better), 95 % intervals paired over people")
    heads = ["phase", "people", "run", "other", "difference"]
    limited = any(row.limit is not None for row in rows)
    for head in (*heads, *(("limit", "share of the way") if limited else ())):
        table.add_column(head, justify="left" if head == "phase" else "right")
    for row in rows:
        low, high = row.interval
        cells = [row.phase, str(row.people), f"{row.value:.3f}", f"{row.other:.3f}"]
        cells.append(
            f"{row.value - row.other:+z.3f} [{low:+z.3f}, {high:+z.3f}]{'' if low <= 0 <= high else ' *'}"
        )
        if limited:
            cells.append("" if row.limit is None else f"{row.limit:.3f}")
            cells.append("" if row.share is None else "{:z.2f} [{:z.2f}, {:z.2f}]".format(*row.share))
        table.add_row(*cells)
    return table


@dataclass(frozen=True)
class _Run:
    """What a run folder tells of its people's scores."""

    folder: Path
    settings: RunSettings
    task: Task
    samples: Mapping[str, Sample]
    limits: Mapping[str, Sample]

    @classmethod
    def read(cls, folder: Path) -> "_Run":
        """Read a folder; raises InputError where it holds no run of `simulate`, or no scores."""
        settings = run_settings(folder)
        task = task_by_name(settings.task)
        samples = read_samples(folder, task)
        if not samples:
            raise InputError(f"{folder}: nobody's answers were scored there yet")
        return cls(folder, settings, task, samples, limit_samples(folder, task, samples))

    def check_people(self, other: "_Run") -> None:
        """Raise InputError where another run's people, or their questions, are others."""
        same = self.settings.data == other.settings.data
        same = same and read_bounds(self.folder) == read_bounds(other.folder)
        for phase in set(self.samples) & set(other.samples):
            same = same and self.samples[phase].users == other.samples[phase].users
        if not same:
            raise InputError(f"{self.folder} and {other.folder} are not over the same people")


def _difference(
    bootstrap: Bootstrap, main: str, phase: str, runs: Sequence[_Run], others: Sequence[_Run]
) -> Difference:
    sample, other = (_pooled([run.samples[phase] for run in some]) for some in (runs, others))
    found = bootstrap.difference(sample, other)[main]
    ones = np.ones((1, len(sample.users)))
    value, beside = (float(one.metrics(ones)[main][0]) for one in (sample, other))
    row = Difference(phase, len(sample.users), value, beside, (found["low"], found["high"]))
    if not all(phase in run.limits for run in runs):
        return row
    reached = _pooled([run.limits[phase] for run in runs])
    share = bootstrap.share(sample, other, reached, main)
    return replace(
        row,
        limit=float(reached.metrics(ones)[main][0]),
        share=None if share is None else (share["value"], share["low"], share["high"]),
    )


def _pooled(samples: Sequence[Sample]) -> Sample:
    """Put the people of several worlds side by side."""
    users = [f"{number}/{user}" for number, sample in enumerate(samples) for user in sample.users]
    return Sample(samples[0].task, users, np.concatenate([sample.sums for sample in samples]))


def _place(phase: str) -> tuple[int, int, str]:
    """Order phases as a run has them: stages, then curves by their numbers."""
    head, _, tail = phase.partition("-")
    number = tail.partition("-")[0]
    kinds = ("evaluate", "history", "collective", "time")
    return (
        kinds.index(head) if head in kinds else len(kinds),
        int(number) if number.isdigit() else 0,
        phase,
    )
