"""Many people's coordinates under one prior, fitted side by side: theta = L z, with z descended in.

    min over z of   sum of the answers' losses in nats + strength / 2 |z|^2

Every pass sees all items of a person, and the steps are taken in z, in which the prior is round: directions
in which people hardly differ move as little as the prior says. Steps of Adam would move all of them alike.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.items import ItemCache, Prepared
from fedperfit.edge.engine.paths.check import checked
from fedperfit.edge.engine.people.descent import Descent
from fedperfit.edge.engine.slab import CoordinateSlab, Stack
from fedperfit.edge.engine.step import StepRow, step_losses
from fedperfit.protocol.people.people import People
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift

PASSES = 10
"""Passes over the items of a fit under a prior."""
_FIRST = 0.4
"""Length of the first step at most, in deviations of people under a prior of strength 1."""


@dataclass(frozen=True, eq=False, repr=False)
class Whitened:
    """One person's coordinates under a prior, as the z that stands for them."""

    people: People
    """Basis and prior, shared by all who are fitted together."""
    z: torch.Tensor
    """Deviations from the collective shift, in those of the prior: (q,)."""

    @classmethod
    def start(cls, people: People) -> "Whitened":
        """Begin at the mean of people, the collective shift alone.

        Args:
            people: Basis and prior, which must be there.
        """
        return cls(people, people.factor().new_zeros(people.factor().shape[1]))

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("personal shifts do not leave the edge")

    @property
    def shape(self) -> ShiftShape:
        """Shape of the shift."""
        return self.people.basis.shape

    def coordinates(self) -> Coordinates:
        """Return the coordinates that z stands for."""
        return Coordinates.of(self.people.basis, self.people.factor() @ self.z)


def fit_under_prior(
    users: Sequence[Whitened],
    examples: Sequence[Sequence[Example]],
    cache: ItemCache,
    *,
    frozen: Sequence[Shift] = (),
    additive: bool = False,
    prefix: Sequence[int] | None = None,
    watch: Callable[[int, int], None] | None = None,
    passes: int = PASSES,
) -> list[float]:
    """Find everyone's likeliest z, in place.

    Args:
        users: People under one prior.
        examples: Training pairs of each of them as token ids.
        cache: Prepared items of the base model.
        frozen: Shifts that act before everyone's own.
        additive: Every shift of a layer acts on the layer's own output.
        prefix: Tokens every prompt is known to begin with; see `ItemCache.prepare`.
        watch: Called before every pass.
        passes: Passes over the items.

    Returns:
        Mean loss of each person in nats per target token, where the descent ended; NaN where it was never
        finite, whose z stays.
    """
    people, base = users[0].people, cache.base
    assert people.prior is not None
    positions = people.basis.shape.positions
    mean = Coordinates.of(people.basis, people.factor().new_zeros(people.basis.numbers))
    slab = CoordinateSlab.of([mean] * len(users), base.device)
    stack = Stack(frozen, slab, additive)
    path = checked(base, stack.layers, positions).training
    prepared = cache.prepare(examples, stack.layers[0], positions, prefix, path)
    factor = people.factor().double()
    tokens = torch.tensor([sum(len(example.target) for example in own) for own in examples]).double()
    first = _FIRST / math.sqrt(people.prior.strength)
    descents = [Descent(factor.shape[1], first) for _ in users]
    for number in range(passes):
        if watch is not None:
            watch(number, passes)
        z = torch.stack([descent.trial for descent in descents])
        losses, gradients = _losses(z @ factor.T, examples, stack, prepared, cache)
        values = tokens * losses + people.prior.strength / 2 * z.square().sum(1)
        slopes = tokens[:, None] * gradients @ factor + people.prior.strength * z
        for descent, value, slope in zip(descents, values.tolist(), slopes, strict=True):
            descent.tell(value, slope)
    for user, descent in zip(users, descents, strict=True):
        user.z.copy_(descent.point)
    ended = torch.tensor([descent.value for descent in descents]).double()
    pulls = torch.stack([people.prior.strength / 2 * descent.point.square().sum() for descent in descents])
    means: list[float] = torch.where(ended.isfinite(), (ended - pulls) / tokens, torch.nan).tolist()
    return means


def _losses(
    theta: torch.Tensor,
    examples: Sequence[Sequence[Example]],
    stack: Stack,
    prepared: Prepared,
    cache: ItemCache,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean losses (users,) of all items under theta (users, n), and their gradients (users, n)."""
    slab = stack.own
    assert isinstance(slab, CoordinateSlab)
    A, b = theta.split([slab.A[0].numel(), slab.b[0].numel()], dim=1)
    with torch.no_grad():
        slab.A.copy_(A.view_as(slab.A))
        slab.b.copy_(b.view_as(slab.b))
    rows = [
        StepRow(place, example, prepared.items[example])
        for place, own in enumerate(examples)
        for example in own
    ]
    losses = step_losses(cache.base, stack, prepared, rows)
    gradients = torch.autograd.grad(losses.sum(), slab.tensors)
    flat = torch.cat([gradient.flatten(1) for gradient in gradients], 1)
    return losses.detach().double().cpu(), flat.double().cpu()
