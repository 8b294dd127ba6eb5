"""Which of several ways to answer suits a person: by the loss on items of theirs they were not fitted on."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from edge.examples import Example
from edge.rows import collate, row_losses
from edge.training import Watch
from protocol.base_model import BaseModel
from protocol.directions import Directions, editing
from protocol.injection import injected
from protocol.shift import Shift

_FEW = 16
_FOLDS = 4
_HELD_OUT = 5
_FEWEST_HELD = 3
_JUDGED = 32
"""Held-out examples that are judged on at most, the latest."""
_ROWS = 8
Examples = Sequence[Example]


@dataclass(frozen=True)
class Acting:
    """What acts in the frozen model: shifts in their order, and an edit."""

    shifts: Sequence[Shift] = ()
    directions: Directions | None = None
    additive: bool = False
    """Whether the shifts of a layer all act on the same state."""


@dataclass(frozen=True)
class Way:
    """One way to answer a person."""

    fit: Callable[[Sequence[Examples]], Sequence[Acting]]
    """What acts after each of several lots of examples."""
    learns: bool
    """Whether it depends on them; then it is judged on examples it was not given."""

    @classmethod
    def fixed(cls, acting: Acting) -> "Way":
        """One that learns nothing."""
        return cls(lambda lots: [acting] * len(lots), learns=False)


@torch.no_grad()
def losses(base: BaseModel, examples: Examples, acting: Acting) -> torch.Tensor:
    """(examples,): each one's mean cross-entropy over its target tokens, in nats."""
    parts = []
    with ExitStack() as stack:
        if acting.directions is not None:
            stack.enter_context(editing(base.model, acting.directions.to(base.device)))
        for start in range(0, len(examples), _ROWS):
            batch = collate(examples[start : start + _ROWS], base.device)
            with ExitStack() as inner:
                if acting.shifts:
                    mask = acting.shifts[0].shape.positions.mask(batch.prompt[:, :-1])
                    shifts = [shift.to(base.device) for shift in acting.shifts]
                    inner.enter_context(injected(base.model, shifts, mask, additive=acting.additive))
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


def judge(
    base: BaseModel, examples: Examples, ways: Mapping[str, Way], watch: Watch | None = None
) -> dict[str, float]:
    """Each way's mean loss on examples it was not given, the same for all.

    With a single example there is nothing to fit a way that learns on, and it is left out, as is one whose
    loss is not finite; without any, nothing can be told. watch: called before each way.
    """
    parts = _parts(examples)
    rests = [rest for _, rest in parts]
    found = {}
    for number, (name, way) in enumerate(ways.items()):
        if watch is not None:
            watch(number, len(ways))
        if parts and (all(rests) or not way.learns):
            judged = [
                losses(base, held, acting) for (held, _), acting in zip(parts, way.fit(rests), strict=True)
            ]
            found[name] = float(torch.cat(judged).mean())
    return {name: loss for name, loss in found.items() if math.isfinite(loss)}


def best(judged: Mapping[str, float], usual: str) -> str:
    """The way with the lowest loss, the first of equals; `usual` where nothing was judged."""
    return min(judged, key=lambda name: judged[name]) if judged else usual


def _parts(examples: Examples) -> list[tuple[Examples, Examples]]:
    """Held out, and the rest, for each fit."""
    if not few(examples):
        held, rest = held_out(examples)
        return [(held[-_JUDGED:], rest)]
    unlike = list(dict.fromkeys(examples))
    lots = [unlike[n::_FOLDS] for n in range(min(_FOLDS, len(unlike)))]
    return [(held, [e for e in unlike if e not in held]) for held in lots]


def _number(example: Example) -> int:
    return hashlib.sha256(repr((example.prompt, example.target)).encode()).digest()[0]
