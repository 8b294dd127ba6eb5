"""A fit of one person's coordinates from which no single item can be told: noisy full-batch descent.

Each of T steps scales the gradient of every item's loss down to a largest norm (Abadi et al., 2016), adds
them up in units of that norm, and adds Gaussian noise of z in every coordinate. Removing one item, its
gradients put to zero, changes each sum by at most 1, so that all steps together are a Gaussian mechanism
with mu = sqrt(T) / z (`protocol/privacy/gaussian.py`); the number of items is no secret. A step moves the
coordinates by the rate times the noised mean; the rate falls linearly to a tenth.

Gradients of all items come at once: every item is a user of the slab, with the same coordinates.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.items import ItemCache, Prepared
from fedperfit.edge.engine.paths.check import checked
from fedperfit.edge.engine.slab import CoordinateSlab, Stack
from fedperfit.edge.engine.step import StepRow, step_losses
from fedperfit.protocol.privacy.noise import new_secret, normal
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError

_SIDE_BY_SIDE = 32
"""Items whose gradients are taken at once."""
_GRID = 2.0**-24
"""Sums and noise are exact multiples of it: no low bit tells what the noise hides (Mironov, 2012)."""


@dataclass(frozen=True)
class NoisySteps:
    """How far a private fit goes, and how much noise it adds."""

    steps: int
    """Number of steps, T."""
    rate: float
    """Length of the first step along a mean of gradients of the largest norm."""
    multiplier: float
    """Standard deviation of the noise of a sum in each coordinate, z."""
    clip: float
    """Largest norm of the gradient of one item; larger ones are scaled down to it."""

    @property
    def mu(self) -> float:
        """Sensitivity of the whole fit to one item, in standard deviations of its noise."""
        return math.sqrt(self.steps) / self.multiplier


@dataclass(frozen=True, eq=False, repr=False)
class Private:
    """One person's coordinates, to be fitted under noise."""

    coordinates: Coordinates
    """Where the descent begins, which must not depend on the items, and then where it ended."""
    how: NoisySteps
    secret: bytes = field(default_factory=new_secret)
    """The noise is made of it; it is drawn anew for every fit and never kept."""

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("personal shifts do not leave the edge")

    @property
    def shape(self) -> ShiftShape:
        """Shape of the shift."""
        return self.coordinates.shape


def fit_privately(
    person: Private,
    examples: Sequence[Example],
    cache: ItemCache,
    *,
    frozen: Sequence[Shift] = (),
    additive: bool = False,
    prefix: Sequence[int] | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> None:
    """Train a person's coordinates in place.

    Args:
        person: Their coordinates, steps and noise.
        examples: The person's training pairs as token ids, one per item.
        cache: Prepared items of the base model.
        frozen: Shifts that act before the person's own.
        additive: Every shift of a layer acts on the layer's own output.
        prefix: Tokens every prompt is known to begin with; see `ItemCache.prepare`.
        watch: Called before every step.

    Raises:
        InputError: If there are no examples.
    """
    if not examples:
        raise InputError("there is no history to train on")
    base, positions = cache.base, person.shape.positions
    coordinates, how = person.coordinates, person.how
    places = min(_SIDE_BY_SIDE, len(examples))
    stack = Stack(frozen, CoordinateSlab.of([coordinates] * places, base.device), additive)
    prepared = cache.prepare(
        [examples], stack.layers[0], positions, prefix, checked(base, stack.layers, positions).training
    )
    numbers = coordinates.numbers.double()
    for step in range(how.steps):
        if watch is not None:
            watch(step, how.steps)
        total = _clipped_sum(numbers, person, examples, stack, prepared, cache)
        noise = how.multiplier * normal(person.secret, f"step {step}", len(total))
        total += (noise / _GRID).round() * _GRID
        numbers -= how.rate * (1 - 0.9 * step / how.steps) * total / len(examples)
    trained = Coordinates.of(coordinates.basis, numbers.float())
    coordinates.A.copy_(trained.A)
    coordinates.b.copy_(trained.b)


def _clipped_sum(
    numbers: torch.Tensor,
    person: Private,
    examples: Sequence[Example],
    stack: Stack,
    prepared: Prepared,
    cache: ItemCache,
) -> torch.Tensor:
    """Return the sum over all items of their clipped gradients, in units of the largest norm: (n,)."""
    slab = stack.own
    assert isinstance(slab, CoordinateSlab)
    here = Coordinates.of(person.coordinates.basis, numbers.float())
    with torch.no_grad():
        slab.A.copy_(here.A)
        slab.b.copy_(here.b)
    total = torch.zeros_like(numbers)
    for start in range(0, len(examples), len(slab.A)):
        rows = [
            StepRow(place, example, prepared.items[example])
            for place, example in enumerate(examples[start : start + len(slab.A)])
        ]
        losses = step_losses(cache.base, stack, prepared, rows)
        A, b = torch.autograd.grad(losses.sum(), slab.tensors)
        gradients = torch.cat([A[: len(rows)].flatten(1), b[: len(rows)].flatten(1)], 1).double().cpu()
        gradients = torch.nan_to_num(gradients, nan=0.0, posinf=0.0, neginf=0.0)
        norms = gradients.norm(dim=1, keepdim=True).clamp_min(person.how.clip)
        total += ((gradients / norms / _GRID).trunc() * _GRID).sum(0)
    return total
