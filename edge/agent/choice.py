"""Which of several ways to answer suits a person: by the loss on items of theirs they were not fitted on."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.rows import collate, row_losses
from fedperfit.edge.engine.training import Watch
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.directions import Directions, editing
from fedperfit.protocol.shift.injection import injected
from fedperfit.protocol.shift.shift import Shift

_FEW = 16
_FOLDS = 4
_HELD_OUT = 5
_FEWEST_HELD = 3
_JUDGED = 32
"""Held-out examples that are judged on at most, the latest."""
_ROWS = 8
_CLEARLY = 2.0
Examples = Sequence[Example]


@dataclass(frozen=True)
class Intervention:
    """What acts in the frozen model: shifts in their order, and an edit."""

    shifts: Sequence[Shift] = ()
    directions: Directions | None = None
    additive: bool = False
    """Whether the shifts of a layer all act on the same state."""


@dataclass(frozen=True)
class Candidate:
    """One way to answer a person."""

    fit: Callable[[Sequence[Examples]], Sequence[Intervention]]
    """What acts after each of several parts of examples."""
    learns: bool
    """Whether it depends on them; then it is judged on examples it was not given."""

    @classmethod
    def fixed(cls, intervention: Intervention) -> "Candidate":
        """One that learns nothing."""
        return cls(lambda parts: [intervention] * len(parts), learns=False)


@torch.no_grad()
def losses(base: BaseModel, examples: Examples, intervention: Intervention) -> torch.Tensor:
    """(examples,): each one's mean cross-entropy over its target tokens, in nats."""
    parts = []
    with ExitStack() as stack:
        if intervention.directions is not None:
            stack.enter_context(editing(base.model, intervention.directions.to(base.device)))
        for start in range(0, len(examples), _ROWS):
            batch = collate(examples[start : start + _ROWS], base.device)
            with ExitStack() as inner:
                if intervention.shifts:
                    mask = intervention.shifts[0].shape.positions.mask(batch.prompt[:, :-1])
                    shifts = [shift.to(base.device) for shift in intervention.shifts]
                    inner.enter_context(injected(base.model, shifts, mask, additive=intervention.additive))
                parts.append(row_losses(base.model, batch).cpu())
    return torch.cat(parts) if parts else torch.empty(0)


def held_out(examples: Examples) -> tuple[list[Example], list[Example]]:
    """One in five, and the rest; an example stays on its side whatever comes after it."""
    held = [e for e in examples if _number(e) % _HELD_OUT == 0]
    return held, [e for e in examples if _number(e) % _HELD_OUT]


def few(examples: Examples) -> bool:
    """Whether there are too few for `held_out` to tell: then each is held out once, a quarter at a time."""
    held, rest = held_out(examples)
    return len(set(examples)) <= _FEW or len(set(held)) < _FEWEST_HELD or not rest


@dataclass(frozen=True)
class Choice:
    """The way that was chosen, and what it was chosen by."""

    name: str
    losses: dict[str, float]
    """Of each way that could be judged, the mean over held-out examples, the same for all."""


def choose(
    base: BaseModel,
    examples: Examples,
    candidates: Mapping[str, Candidate],
    usual: str,
    watch: Watch | None = None,
) -> Choice:
    """The `usual` way, unless another one's held-out loss is lower by more than `_CLEARLY` standard errors.

    Few examples can hardly tell ways apart; the usual one is what is better on the whole. A way whose loss is
    not finite is out of the question. Without an example nothing can be judged, and with a single one no way
    that learns. watch: called before each way.
    """
    judged = _judged(base, examples, candidates, watch)
    means = {name: float(each.mean()) for name, each in judged.items()}
    sound = {name: mean for name, mean in means.items() if math.isfinite(mean)}
    rivals = [name for name in sound if name != usual]
    if usual in sound:
        rivals = [name for name in rivals if _clearly_lower(judged[name], judged[usual])]
    elif usual not in judged:
        rivals = []
    return Choice(min(rivals, key=lambda name: sound[name], default=usual), sound)


def _clearly_lower(one: torch.Tensor, other: torch.Tensor) -> bool:
    gain = other - one
    return len(gain) > 1 and bool(gain.mean() > _CLEARLY * gain.std() / len(gain) ** 0.5)


def _judged(
    base: BaseModel, examples: Examples, candidates: Mapping[str, Candidate], watch: Watch | None
) -> dict[str, torch.Tensor]:
    """Each way's losses on examples it was not given, the same ones in the same order."""
    parts = _parts(examples)
    rests = [rest for _, rest in parts]
    found = {}
    for number, (name, candidate) in enumerate(candidates.items()):
        if watch is not None:
            watch(number, len(candidates))
        if parts and (all(rests) or not candidate.learns):
            intervention = candidate.fit(rests)
            found[name] = torch.cat(
                [losses(base, held, one) for (held, _), one in zip(parts, intervention, strict=True)]
            )
    return found


def _parts(examples: Examples) -> list[tuple[Examples, Examples]]:
    """Held out, and the rest, for each fit."""
    if not few(examples):
        held, rest = held_out(examples)
        return [(held[-_JUDGED:], rest)]
    unlike = list(dict.fromkeys(examples))
    parts = [unlike[n::_FOLDS] for n in range(min(_FOLDS, len(unlike)))]
    return [(held, [e for e in unlike if e not in held]) for held in parts]


def _number(example: Example) -> int:
    return hashlib.sha256(repr((example.prompt, example.target)).encode()).digest()[0]
