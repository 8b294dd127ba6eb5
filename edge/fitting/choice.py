"""Chooses among candidates to answer a person, by the loss on items that no candidate was fitted on."""

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
"""Number of latest held-out examples that candidates are judged on."""
_ROWS = 8
_CLEARLY = 2.0
Examples = Sequence[Example]


@dataclass(frozen=True)
class Intervention:
    """Changes of the frozen model: shifts in the order in which they act, and an edit."""

    shifts: Sequence[Shift] = ()
    directions: Directions | None = None
    """Directions that edit the MLPs, if any do."""
    additive: bool = False
    """Whether every shift of a layer acts on the layer's own output."""


@dataclass(frozen=True)
class Candidate:
    """One of several ways to answer a person."""

    fit: Callable[[Sequence[Examples]], Sequence[Intervention]]
    """Returns one intervention per part of examples, fitted on the part."""
    learns: bool
    """Whether the interventions depend on the examples."""

    @classmethod
    def fixed(cls, intervention: Intervention) -> "Candidate":
        """A candidate that learns nothing: the same intervention for all examples."""
        return cls(lambda parts: [intervention] * len(parts), learns=False)


@torch.no_grad()
def losses(base: BaseModel, examples: Examples, intervention: Intervention) -> torch.Tensor:
    """Mean cross-entropy over the target tokens of each example, under an intervention.

    Args:
        base: the frozen model.
        examples: token ids of prompts and targets.
        intervention: changes of the model.

    Returns:
        (examples,) losses in nats, on the CPU.
    """
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
    """Split off one example in five; an example stays on its side whatever examples come later."""
    held = [e for e in examples if _number(e) % _HELD_OUT == 0]
    return held, [e for e in examples if _number(e) % _HELD_OUT]


def few(examples: Examples) -> bool:
    """Whether there are too few examples for `held_out`; then each is held out once, a quarter at a time."""
    held, rest = held_out(examples)
    return len(set(examples)) <= _FEW or len(set(held)) < _FEWEST_HELD or not rest


@dataclass(frozen=True)
class Choice:
    """Candidate that was chosen, with the losses it was chosen by."""

    name: str
    losses: dict[str, float]
    """Mean loss of each judged candidate over the held-out examples, in nats per target token."""


def choose(
    base: BaseModel,
    examples: Examples,
    candidates: Mapping[str, Candidate],
    usual: str,
    watch: Watch | None = None,
) -> Choice:
    """Choose the default unless another candidate's held-out loss is lower by two standard errors.

    With few examples the candidates cannot be told apart, so the default wins. A candidate whose loss is not
    finite is never chosen. Without examples no candidate can be judged, and with one none that learns.

    Args:
        base: the frozen model.
        examples: the person's training pairs, oldest first.
        candidates: by name; judged in this order.
        usual: name of the default.
        watch: called before each candidate with its number and their number.
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
    """Losses (examples,) of each candidate on examples it was not fitted on, the same for all."""
    parts = _parts(examples)
    rests = [rest for _, rest in parts]
    judged = {}
    for number, (name, candidate) in enumerate(candidates.items()):
        if watch is not None:
            watch(number, len(candidates))
        if parts and (all(rests) or not candidate.learns):
            intervention = candidate.fit(rests)
            judged[name] = torch.cat(
                [losses(base, held, one) for (held, _), one in zip(parts, intervention, strict=True)]
            )
    return judged


def _parts(examples: Examples) -> list[tuple[Examples, Examples]]:
    """Held-out examples and the rest, for each fit."""
    if not few(examples):
        held, rest = held_out(examples)
        return [(held[-_JUDGED:], rest)]
    unlike = list(dict.fromkeys(examples))
    parts = [unlike[n::_FOLDS] for n in range(min(_FOLDS, len(unlike)))]
    return [(held, [e for e in unlike if e not in held]) for held in parts]


def _number(example: Example) -> int:
    return hashlib.sha256(repr((example.prompt, example.target)).encode()).digest()[0]
