"""Metrics by name: the sums over questions that each is made of, so that they pool without the answers."""

import importlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from fedperfit.protocol.system.errors import InputError, line_of
from fedperfit.protocol.tasks.answers import AnswerKind
from fedperfit.protocol.tasks.templates import nearest_of

OWN_METRIC = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*")
"""Pattern of a function of one's own, `module:function`."""


@dataclass(frozen=True)
class Metric:
    """A metric that ships."""

    kinds: tuple[AnswerKind, ...]
    """Kinds of answers that it scores."""
    sums: tuple[str, ...]
    """Sums over questions that it is computed from, beside the number of questions."""
    lower_is_better: bool = False


METRICS = {
    "accuracy": Metric((AnswerKind.LABELS, AnswerKind.NUMBER), ("correct",)),
    "f1": Metric((AnswerKind.LABELS,), ("true-positives", "predicted", "gold")),
    "mae": Metric((AnswerKind.NUMBER,), ("absolute-error",), lower_is_better=True),
    "rmse": Metric((AnswerKind.NUMBER,), ("squared-error",), lower_is_better=True),
    "rouge-1": Metric((AnswerKind.TEXT,), ("rouge-1",)),
    "rouge-L": Metric((AnswerKind.TEXT,), ("rouge-L",)),
    "chrf": Metric((AnswerKind.TEXT,), ("chrf",)),
    "bleu": Metric((AnswerKind.TEXT,), ("bleu",)),
    "exact": Metric((AnswerKind.TEXT,), ("correct",)),
}
"""Metrics that a task's file may name."""
DEFAULT_METRICS = {
    AnswerKind.LABELS: ("accuracy", "f1"),
    AnswerKind.NUMBER: ("mae", "rmse", "accuracy"),
    AnswerKind.TEXT: ("rouge-1", "rouge-L", "exact"),
}
"""LaMP's metrics of each kind of answers, the main one first."""
PER_LABEL = ("true-positives", "predicted", "gold")
"""Sums that are lists with one count per label."""
_ALWAYS = {
    AnswerKind.LABELS: ("correct", *PER_LABEL),
    AnswerKind.NUMBER: ("correct", "absolute-error", "squared-error"),
    AnswerKind.TEXT: ("correct",),
}


def check_metrics(kind: AnswerKind, names: Sequence[str]) -> None:
    """Check the metrics of a task's file.

    Args:
        kind: Kind of the task's answers.
        names: Metrics by name, or `module:function`.

    Raises:
        InputError: One is unknown, stands twice, or does not score such answers.
    """
    suiting = [name for name, metric in METRICS.items() if kind in metric.kinds]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"metrics: {name!r} stands twice")
        if name not in suiting and not OWN_METRIC.fullmatch(name):
            raise InputError(
                f"metrics: {name!r} scores no answers of kind {kind}: expected module:function or one of "
                f"{', '.join(suiting)}; the nearest is {nearest_of(name, suiting)}"
            )


def sums_of(kind: AnswerKind, metrics: Sequence[str]) -> list[str]:
    """List the sums over questions that answers of a task are scored by.

    Args:
        kind: Kind of the task's answers.
        metrics: Names of its metrics.
    """
    needed = [
        name for metric in metrics for name in (METRICS[metric].sums if metric in METRICS else (metric,))
    ]
    return list(dict.fromkeys([*_ALWAYS[kind], *needed]))


def guiding_sum(metrics: Sequence[str]) -> tuple[str, int]:
    """Return the sum that stands for the main metric in a search, and its sign: 1 where large is good."""
    main = METRICS.get(metrics[0])
    if main is None:
        return metrics[0], 1
    name = main.sums[0]
    return ("correct" if name in PER_LABEL else name), -1 if main.lower_is_better else 1


def own_metrics(metrics: Sequence[str]) -> list[str]:
    """List the metrics that are functions of one's own, which only simulations run."""
    return [name for name in metrics if name not in METRICS]


@cache
def own_metric(name: str) -> Callable[[str, str], float]:
    """Import a metric of one's own, which takes an answer and a gold answer and gives a score from 0 to 1.

    Args:
        name: `module:function`; the module is installed, or on PYTHONPATH.

    Raises:
        InputError: It cannot be imported.
    """
    module, _, function = name.partition(":")
    with _named(name):
        found = getattr(importlib.import_module(module), function)

    def scored(answer: str, gold: str) -> float:
        with _named(name):
            value = float(found(answer, gold))
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise InputError(f"metric {name}: {value:g} is not a score from 0 to 1")
        return value

    return scored


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Have whatever a metric of one's own raises inside the block name the metric.

    Raises:
        InputError: It raised, or tried to end the program.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        line = f"metric {name}: {type(error).__name__}: {error}"
        raise InputError(line_of(line.rstrip(": "))) from None
