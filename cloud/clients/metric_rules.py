"""The metric sums a client may share, by name, form and size; any other metric is refused.

A sum over items is bounded by what one item can add, so a client cannot put more into a report than
its items allow.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedperfit.protocol.tasks import AnswerKind, Task
from fedperfit.protocol.tasks.metrics import PER_LABEL, sums_of

_SLACK = 1e-6
"""Relative rounding error allowed on a sum of floats."""

Metric = float | list[int]
"""A sum over items, or one count per label."""


@dataclass(frozen=True)
class MetricRule:
    """Form and bounds of one metric; sums are never negative."""

    per_item: float
    """Largest amount that one item can add to the sum."""
    length: int = 0
    """Number of counts in a list whose total obeys `per_item`; 0 for a single number."""

    def check(self, value: object, items: int) -> Metric:
        """Return a client's value in its declared form.

        Args:
            value: A sum over items, as the client sent it.
            items: Number of items behind it.

        Raises:
            ValueError: With the reason, worded to follow the metric's name.
        """
        if self.length:
            if not isinstance(value, list) or len(value) != self.length:
                raise ValueError(f"is not a list of {self.length}")
            if not all(type(entry) is int and 0 <= entry < 2**63 for entry in value):
                raise ValueError("is not a list of counts")
            self._bound(float(sum(value)), items)
            return list(value)
        if type(value) is not float and type(value) is not int:
            raise ValueError("is not a number")
        if type(value) is int and abs(value) >= 2**63:
            raise ValueError("is out of range")
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"is {number}")
        self._bound(number, items)
        return number

    def _bound(self, total: float, items: int) -> None:
        most = self.per_item * items if items else 0.0
        if not 0 <= total <= most * (1 + _SLACK):
            raise ValueError(f"is {total:g}, outside 0..{most:g} for {items} items")


TRAINING_METRICS: Mapping[str, MetricRule] = {"loss": MetricRule(per_item=1e4)}
"""Metrics of contribute and personalize: the sum of the items' losses, in nats."""


def evaluation_metrics(task: Task) -> Mapping[str, MetricRule]:
    """Return the rules for the sums from which the metrics of this task are computed."""
    numbers = [float(label) for label in task.labels] if task.kind is AnswerKind.NUMBER else [0.0]
    widest = max(numbers) - min(numbers)
    errors = {"absolute-error": widest, "squared-error": widest**2}
    return {
        name: MetricRule(errors.get(name, 1), length=len(task.labels) if name in PER_LABEL else 0)
        for name in sums_of(task.kind, task.metrics)
    }
