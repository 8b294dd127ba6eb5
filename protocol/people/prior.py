"""A prior over people: how the coordinates of personal shifts vary, learned from rounds in a frozen basis.

    theta = L z,  z ~ N(0, I)          L L^T = V diag(s^2) V^T + f^2 I

theta (n,) are a person's coordinates A, b on top of the collective shift, which is the prior's mean; V (n, m)
has the leading directions between people, s their deviations, f the floor in all directions. A person's own
coordinates are the likeliest given the answers:

    min over z of   sum of the answers' losses in nats + strength / 2 |z|^2

The covariance matters: variances alone, without what varies with what, gain far less.
"""

import math
from dataclasses import dataclass

import torch

from fedperfit.protocol.people.scatter import MOST_NUMBERS
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.system.errors import InputError

MOST_DIRECTIONS = 64
"""Directions between people that a prior holds, at most."""
_MOST_DEVIATION = 1e6
"""Largest standard deviation: beyond any shift that still answers, and far from what fp32 cannot hold."""


@dataclass(frozen=True, eq=False)
class Prior:
    """A normal distribution of people's coordinates about the collective shift, and how strongly it holds."""

    directions: torch.Tensor
    """Leading directions between people: (m, n) fp32, orthonormal rows."""
    deviations: torch.Tensor
    """Standard deviation along each of them: (m,) fp32, positive, falling."""
    floor: float
    """Standard deviation in every direction, on top of theirs."""
    strength: float
    """Weight of |z|^2 / 2 beside the sum of the answers' losses."""
    items: int
    """Most items of a person that it is used for unasked."""
    numbers: int = 0
    """Number of a person's numbers, along that many leading directions alone; 0 is all."""
    gives_way: str = "items"
    """What decides with more items: `items` fits freely, `loss` asks the person's own held-out items."""

    def __post_init__(self) -> None:
        rows, size = self.directions.shape if self.directions.dim() == 2 else (0, 0)
        if not 1 <= rows <= min(size, MOST_DIRECTIONS) or tuple(self.deviations.shape) != (rows,):
            raise InputError("the directions of the prior over people have a wrong shape")
        if size > MOST_NUMBERS:  # a fit has a matrix of so many rows and columns
            raise InputError(f"the prior over people has {size} coordinates, at most {MOST_NUMBERS} are fit")
        error = self.directions.double() @ self.directions.double().T - torch.eye(rows)
        if not float(error.abs().max()) <= 1e-4:
            raise InputError("the directions of the prior over people are not orthonormal")
        if not (bool((self.deviations > 0).all()) and bool(self.deviations.isfinite().all())):
            raise InputError("the deviations of the prior over people are not positive numbers")
        if max(self.floor, float(self.deviations.max())) > _MOST_DEVIATION:
            raise InputError(f"people differ by more than {_MOST_DEVIATION:g} in the prior over people")
        for name, value in (("floor", self.floor), ("strength", self.strength)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"the {name} of the prior over people is not a positive number")
        if self.items < 1 or not 0 <= self.numbers <= rows:
            raise InputError("the prior over people has too many numbers, or is for no items")
        if self.gives_way not in ("items", "loss"):
            raise InputError("the prior over people gives way to something unknown")

    def factor(self) -> torch.Tensor:
        """Return L: (n, n), or (n, numbers) along the leading directions alone."""
        V, s = self.directions.double().T, self.deviations.double()
        spread = (s.square() + self.floor**2).sqrt()
        if self.numbers:
            return (V * spread)[:, : self.numbers].float()
        return (self.floor * torch.eye(len(V)) + (V * (spread - self.floor)) @ V.T).float()


def estimated_prior(
    scatter: torch.Tensor,
    count: int,
    *,
    floor: float,
    strength: float,
    items: int,
    numbers: int = 0,
    gives_way: str = "items",
) -> Prior:
    """Make the prior that what differed between people shows.

    Args:
        scatter: Sum of the outer products of centred updates: (n, n).
        count: Degrees of freedom of that sum: the updates less one for each mean.
        floor: Variance in all directions, as a share of the mean variance.
        strength: Weight of the prior beside the answers' losses.
        items: Most items of a person that the prior is used for unasked.
        numbers: Numbers of a person; 0 is all.
        gives_way: What decides with more items.

    Raises:
        InputError: If the updates do not differ, or in too few directions for `numbers`.
    """
    covariance = scatter.double() / max(count, 1)
    mean_variance = float(covariance.trace()) / len(covariance)
    if count < 1 or not (math.isfinite(mean_variance) and mean_variance > 0):
        raise InputError("the updates of the rounds do not tell how people differ: at least two must differ")
    values, axes = torch.linalg.eigh(covariance)
    kept = min(MOST_DIRECTIONS, int((values > 1e-6 * values[-1]).sum()))
    if numbers > kept:
        raise InputError(f"personal-numbers={numbers}: the updates differ in {kept} directions")
    leading = axes.flip(1)[:, :kept].T
    signs = torch.where(leading.gather(1, leading.abs().argmax(1, keepdim=True)) < 0, -1.0, 1.0)
    return Prior(
        (leading * signs).float().contiguous(),
        values.flip(0)[:kept].sqrt().float(),
        math.sqrt(floor * mean_variance),
        strength,
        items,
        numbers,
        gives_way,
    )


def part(basis: Basis, columns: int) -> tuple[Basis, torch.Tensor]:
    """Leave out the last rows of P, the least that hidden states differ along.

    Args:
        basis: A basis.
        columns: Rows of P to keep, at most those it has.

    Returns:
        The smaller basis, and the places of its coordinates among those of `basis`.

    Raises:
        InputError: If the basis has fewer columns.
    """
    if not 1 <= columns <= basis.columns:
        raise InputError(f"personal-columns={columns}: the update basis has {basis.columns}")
    smaller = Basis(basis.shape, basis.task, basis.fingerprint, basis.R, basis.P[:, :columns].contiguous())
    layers, rank = len(basis.shape.layers), basis.shape.rank
    places = torch.arange(basis.numbers)
    A, b = places.split([layers * rank * basis.columns, layers * rank])
    return smaller, torch.cat([A.reshape(layers, rank, -1)[:, :, :columns].flatten(), b])
