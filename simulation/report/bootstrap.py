"""Metrics from metric sums, with 95 % bootstrap intervals over users.

Sums are pooled over questions; an interval resamples whole users, with all their questions. Stages and points
of a curve are compared on the same resamples, so that differences are paired.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from fedperfit.edge.engine.scoring import Sums
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Task
from fedperfit.protocol.tasks.metrics import METRICS, PER_LABEL, sums_of

LOWER_IS_BETTER = frozenset(name for name, metric in METRICS.items() if metric.lower_is_better)
Array = NDArray[np.float64]
FEWEST = 6
"""Users below which no difference is told from chance: of five, all lie on one side once in 16 times."""


class Counts(TypedDict):
    """What a client's answers in one phase came to."""

    items: int
    """Number of answers that were scored."""
    metrics: Sums
    """Sums by name; empty where the client does not share them."""


Phase = dict[str, Counts]
"""Results of one phase by client."""


@dataclass(frozen=True)
class Sample:
    """Metric sums of one phase, per user who shares them; users are sorted."""

    task: Task
    users: list[str]
    sums: Array
    """Numbers of items, then the sums of the task's metrics: (users, columns)."""

    @classmethod
    def of(cls, task: Task, phase: Phase) -> "Sample":
        """Collect the sums of a phase; users without metrics are left out.

        Args:
            task: Task that is worked on.
            phase: Results of the phase.

        Raises:
            InputError: They are not the sums of this task.
        """
        users = sorted(user for user, counts in phase.items() if counts["metrics"])
        rows = [[phase[user]["items"], *_columns(task, phase[user]["metrics"])] for user in users]
        return cls(task, users, np.array(rows, dtype=np.float64))

    def metrics(self, weights: Array) -> dict[str, Array]:
        """Compute the task's metrics, pooled over the weighted users.

        Args:
            weights: Weight of each user in each draw: (draws, users).

        Returns:
            Values by metric: (draws,).
        """
        return _metrics(self.task, weights @ self.sums)


def _columns(task: Task, metrics: Sums) -> list[float]:
    columns: list[float] = []
    for name in sums_of(task.kind, task.metrics):
        value = metrics.get(name, [])
        values = value if isinstance(value, list) else [value]
        if len(values) != (len(task.labels) if name in PER_LABEL else 1):
            raise InputError(f"no sums of {task.id}: {name!r} is missing, or has another length")
        columns += map(float, values)
    return columns


def _metrics(task: Task, pooled: Array) -> dict[str, Array]:
    items, sums, start = pooled[:, 0], dict[str, Array](), 1
    for name in sums_of(task.kind, task.metrics):
        width = len(task.labels) if name in PER_LABEL else 1
        sums[name] = pooled[:, start : start + width]
        start += width
    return {name: _metric(name, items, sums) for name in task.metrics}


def _metric(name: str, items: Array, sums: Mapping[str, Array]) -> Array:
    if name == "f1":
        hits, both = sums["true-positives"], sums["predicted"] + sums["gold"]
        f1 = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
        return np.asarray(f1.mean(axis=1))
    total = sums[METRICS[name].sums[0] if name in METRICS else name][:, 0]
    return np.asarray(np.sqrt(total / items) if name == "rmse" else total / items)


class Bootstrap:
    """Resamples of users: the same draws for every phase with the same number of users."""

    def __init__(self, seed: int, samples: int) -> None:
        """Set up the resampling.

        Args:
            seed: Seed of the draws.
            samples: Number of draws.
        """
        self.seed, self.samples = seed, samples

    def weights(self, users: int) -> Array:
        """Draw how often each user is in each resample: (samples, users)."""
        generator = np.random.default_rng(self.seed)
        return generator.multinomial(users, np.full(users, 1 / users), self.samples).astype(np.float64)

    def estimates(self, sample: Sample) -> dict[str, dict[str, float]]:
        """Estimate each metric: `value`, interval `low` to `high`, and `user-mean`, the mean over users."""
        users = len(sample.users)
        point = sample.metrics(np.ones((1, users)))
        drawn = sample.metrics(self.weights(users))
        each = sample.metrics(np.eye(users))
        return {
            name: {
                "value": float(point[name][0]),
                **_interval(drawn[name]),
                "user-mean": float(each[name].mean()),
            }
            for name in point
        }

    def difference(self, sample: Sample, other: Sample) -> dict[str, dict[str, Any]]:
        """Estimate `sample` minus `other` over the users both have, paired.

        Args:
            sample: Sums of one phase.
            other: Sums of the other phase.

        Returns:
            Per metric `value`, interval `low` to `high`, and whether zero is outside of it and the users are
            not too few to tell (`significant`).
        """
        shared = [user for user in sample.users if user in set(other.users)]
        first, second = (_only(one, shared) for one in (sample, other))
        ones, weights = np.ones((1, len(shared))), self.weights(len(shared))
        points = first.metrics(ones), second.metrics(ones)
        draws = first.metrics(weights), second.metrics(weights)
        result: dict[str, dict[str, Any]] = {}
        for name in points[0]:
            interval = _interval(draws[0][name] - draws[1][name])
            beyond = len(shared) >= FEWEST and (interval["low"] > 0 or interval["high"] < 0)
            value = float(points[0][name][0] - points[1][name][0])
            result[name] = {"value": value, **interval, "significant": beyond}
        return result

    def share(self, sample: Sample, unknown: Sample, bayes: Sample, metric: str) -> dict[str, float] | None:
        """Estimate (score - best without the user) / (Bayes-optimal - best without the user) for one metric.

        Args:
            sample: Sums of the scored answers.
            unknown: Sums of the best answers without knowing the user.
            bayes: Sums of the best answers, the user known.
            metric: Name of the metric.

        Returns:
            `value` and interval `low` to `high`, or None where knowing the user gains nothing.
        """

        def of(weights: Array) -> Array:
            s, u, b = (one.metrics(weights)[metric] for one in (sample, unknown, bayes))
            return np.asarray((s - u) / (b - u))

        users = len(sample.users)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(of(np.ones((1, users)))[0])
            return {"value": value, **_interval(of(self.weights(users)))} if np.isfinite(value) else None


def _only(sample: Sample, users: list[str]) -> Sample:
    rows = [sample.users.index(user) for user in users]
    return Sample(sample.task, users, sample.sums[rows])


def _interval(values: Array) -> dict[str, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return {"low": float(low), "high": float(high)}


def doubt(difference: Mapping[str, Any]) -> str:
    """Say why a paired difference tells nothing: by chance, or too few users; empty where it does.

    Args:
        difference: One metric's, of `Bootstrap.difference`.
    """
    if difference["significant"]:
        return ""
    return "within chance" if difference["low"] <= 0 <= difference["high"] else "too few users to tell"
