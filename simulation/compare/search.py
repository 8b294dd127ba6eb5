"""Random search of a method's hyper-parameters on users who are no targets, with the same budget for all."""

import math
import random
from collections.abc import Sequence
from itertools import product
from typing import Any

from typing_extensions import TypedDict

from fedperfit.edge.engine.scoring import score
from fedperfit.protocol.tasks import Task
from fedperfit.protocol.tasks.metrics import guiding_sum
from fedperfit.simulation.compare.context import Values
from fedperfit.simulation.compare.method import LogUniform, Method, Space

_TRIES = 100
"""Values drawn for each that is wanted, at most: a narrow range holds fewer of three digits."""


def drawn(method: type[Method], draws: int) -> list[dict[str, Any]]:
    """List the values to try: `draws` at random, or those that there are where these are fewer.

    Args:
        method: The method, whose name seeds the draws: they are the same in every run.
        draws: Number of draws.
    """
    space = method.space
    if not space:
        return []
    every = _every(space)
    rng = random.Random(f"search/{method.name}")
    if every is not None and len(every) <= draws:
        return every
    trials: list[dict[str, Any]] = []
    for _ in range(_TRIES * draws):
        if len(trials) == draws:
            break
        values = {
            name: choices.draw(rng) if isinstance(choices, LogUniform) else rng.choice(list(choices))
            for name, choices in space.items()
        }
        if values not in trials:
            trials.append(values)
    return trials


def _every(space: Space) -> list[dict[str, Any]] | None:
    """List all combinations, or return None where a range makes them endless."""
    choices = [list(c) for c in space.values() if not isinstance(c, LogUniform)]
    if len(choices) < len(space):
        return None
    return [dict(zip(space, values, strict=True)) for values in product(*choices)]


def goodness(task: Task, answers: Sequence[str], golds: Sequence[str]) -> tuple[float, int]:
    """Sum over questions what the search wants large.

    Args:
        task: Task that is worked on.
        answers: Answers of a method.
        golds: Answers of the user.

    Returns:
        The sum and the number of questions.
    """
    sums = score(task, answers, golds)
    name, sign = guiding_sum(task.metrics)
    value = sums[name]
    assert isinstance(value, float)
    return sign * value, len(golds)


class Trial(TypedDict):
    """What a search wrote for one draw."""

    draw: int
    values: dict[str, Any]
    """Values of hyper-parameters that were tried."""
    score: float
    questions: int
    seconds: float


def best(log: Sequence[Trial]) -> Values:
    """Return the values of the trial with the highest score, the first of equals."""
    top = max(log, key=lambda trial: (_number(trial["score"]), -trial["draw"]))
    return top["values"]


def _number(score: float) -> float:
    return score if math.isfinite(score) else -math.inf
