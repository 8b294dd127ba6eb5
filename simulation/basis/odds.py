"""How a person's coordinates move the odds of each answer, to first order, from the base model alone."""

from collections.abc import Sequence

import torch

from fedperfit.edge.engine.examples import Example, encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.paths.check import checked
from fedperfit.edge.engine.slab import CoordinateSlab, Stack
from fedperfit.edge.engine.step import StepRow, step_losses
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.tasks import Pair, Prompt

_SIDE_BY_SIDE = 32
"""Gradients that are taken at once."""


def label_gradients(
    base: BaseModel, basis: Basis, labels: Sequence[str], prompts: Sequence[Prompt]
) -> torch.Tensor:
    """Take the gradient of each label's log probability by the coordinates, where they change nothing.

    Args:
        base: The frozen model.
        basis: Basis of the coordinates.
        labels: The task's labels.
        prompts: Prompts to take the mean over.

    Returns:
        (labels, n) fp64, in nats per unit of each coordinate.
    """
    cache = ItemCache(base, 0)  # one of its own: what others prepared would change the last bits
    total = torch.zeros(len(labels), basis.numbers, dtype=torch.float64)
    for prompt in prompts:
        examples = encode(base, [Pair(prompt, label) for label in labels])
        total += torch.cat(
            [
                _gradients(cache, basis, examples[start : start + _SIDE_BY_SIDE])
                for start in range(0, len(examples), _SIDE_BY_SIDE)
            ]
        )
    return total / len(prompts)


def _gradients(cache: ItemCache, basis: Basis, examples: Sequence[Example]) -> torch.Tensor:
    """Return the gradient of each target's log probability: (examples, n) fp64."""
    base, positions = cache.base, basis.shape.positions
    own = CoordinateSlab.of([Coordinates.zero(basis)] * len(examples), base.device)
    stack = Stack([], own, False)
    path = checked(base, stack.layers, positions).training
    prepared = cache.prepare([examples], stack.layers[0], positions, None, path)
    rows = [StepRow(user, example, prepared.items[example]) for user, example in enumerate(examples)]
    tokens = torch.tensor([len(example.target) for example in examples], device=base.device)
    score = -(step_losses(base, stack, prepared, rows) * tokens).sum()
    A, b = torch.autograd.grad(score, own.tensors)
    return torch.cat([A.flatten(1), b.flatten(1)], 1).double().cpu()
