"""Which of several ways to answer suits a person: by the loss on items of theirs they were not fitted on."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from edge.examples import Example, encode
from protocol.base_model import BaseModel
from protocol.directions import Directions, editing
from protocol.injection import injected
from protocol.shift import Shift
from protocol.tasks import Pair

FOLDS = 4
"""Parts of a history in turn held out."""
_ROWS = 8


@dataclass(frozen=True)
class Acting:
    """What acts in the frozen model: shifts in their order, and an edit."""

    shifts: Sequence[Shift] = ()
    directions: Directions | None = None


@dataclass(frozen=True)
class Way:
    """One way to answer a person."""

    fit: Callable[[Sequence[Pair]], Acting]
    learns: bool
    """Whether it depends on the pairs it is given; then it is judged on those it was not given."""


@torch.no_grad()
def losses(base: BaseModel, pairs: Sequence[Pair], acting: Acting) -> torch.Tensor:
    """(pairs,): each pair's mean cross-entropy over its target tokens, in nats."""
    examples = encode(base, pairs)
    with ExitStack() as stack:
        if acting.directions is not None:
            stack.enter_context(editing(base.model, acting.directions.to(base.device)))
        parts = [
            _losses(base, examples[start : start + _ROWS], acting.shifts)
            for start in range(0, len(examples), _ROWS)
        ]
    return torch.cat(parts) if parts else torch.empty(0)


def _losses(base: BaseModel, examples: Sequence[Example], shifts: Sequence[Shift]) -> torch.Tensor:
    rows = [[*example.prompt, *example.target] for example in examples]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=base.device)
    column = torch.arange(width, device=base.device)
    prompts = torch.tensor([[len(example.prompt)] for example in examples], device=base.device)
    lengths = torch.tensor([[len(row)] for row in rows], device=base.device)
    with ExitStack() as stack:
        if shifts:
            mask = shifts[0].shape.positions.mask(column < prompts)
            stack.enter_context(injected(base.model, shifts, mask))
        logits = base.model(input_ids=ids, attention_mask=(column < lengths).long(), use_cache=False).logits
    target = ((column >= prompts) & (column < lengths))[:, 1:]
    each = F.cross_entropy(logits[:, :-1].float().mT, ids[:, 1:], reduction="none")
    return (each * target).sum(1).cpu() / target.sum(1).cpu()


def choose(base: BaseModel, pairs: Sequence[Pair], ways: Mapping[str, Way], usual: str) -> str:
    """The way with the lowest mean loss; `usual` without pairs, and among equals the first.

    A way that learns is fitted `FOLDS` times on all but a part of the pairs, fewer where there are fewer
    pairs; with one pair there is nothing to fit it on, and it is out of the question.
    """
    if not pairs:
        return usual
    found = {
        name: float(_judged(base, pairs, way))
        for name, way in ways.items()
        if len(pairs) > 1 or not way.learns
    }
    return min(found, key=lambda name: found[name])


def _judged(base: BaseModel, pairs: Sequence[Pair], way: Way) -> torch.Tensor:
    if not way.learns:
        return losses(base, pairs, way.fit(pairs)).mean()
    parts = [range(n, len(pairs), FOLDS) for n in range(min(FOLDS, len(pairs)))]
    held = []
    for part in parts:
        rest = [pair for number, pair in enumerate(pairs) if number not in part]
        held.append(losses(base, [pairs[number] for number in part], way.fit(rest)))
    return torch.cat(held).mean()
