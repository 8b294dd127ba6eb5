"""Many people's coordinates under one prior, fitted side by side: theta = L z, with z trained.

    min over z of   sum of the answers' losses in nats + strength / 2 |z|^2

Steps are taken in z / c with c^2 = `_UNIT` / strength, in which every prior is as strong: their rate suits
whatever the prior was made of. A step sees the mean loss of a batch, whose gradient is that of this objective
divided by all target tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch

from fedperfit.protocol.people.people import People
from fedperfit.protocol.people.prior import Prior
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.shape import ShiftShape

_UNIT = 0.1
"""Strength at which the unit of a step is the deviation between people that the prior tells."""


def scale(prior: Prior) -> float:
    """Return c, the unit in which a step moves z."""
    return math.sqrt(_UNIT / prior.strength)


@dataclass(frozen=True, eq=False, repr=False)
class Whitened:
    """One person's coordinates under a prior, as the z that stands for them."""

    people: People
    """Basis and prior, shared by all who are fitted together."""
    tokens: int
    """Target tokens of all the person's answers."""
    z: torch.Tensor
    """Deviations from the collective shift, in units of c: (q,)."""

    @classmethod
    def start(cls, people: People, tokens: int) -> "Whitened":
        """Begin at the mean of people, the collective shift alone.

        Args:
            people: Basis and prior, which must be there.
            tokens: Target tokens of all the person's answers.
        """
        return cls(people, tokens, people.factor().new_zeros(people.factor().shape[1]))

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("personal shifts do not leave the edge")

    @property
    def shape(self) -> ShiftShape:
        """Shape of the shift."""
        return self.people.basis.shape

    def coordinates(self) -> Coordinates:
        """Return the coordinates that z stands for."""
        assert self.people.prior is not None
        return Coordinates.of(self.people.basis, self.people.factor() @ self.z * scale(self.people.prior))


@dataclass(frozen=True, repr=False)
class WhitenedSlab:
    """The z of many people, to train. Stays at the edge like a slab."""

    shape: ShiftShape
    """Layers, rank, hidden size and positions of every person's shift."""
    R: torch.Tensor
    """(layers, r, d), frozen."""
    P: torch.Tensor
    """(layers, k, d), frozen."""
    to_A: torch.Tensor
    """Rows of c L that make A: (layers, r, k, q)."""
    to_b: torch.Tensor
    """Rows of c L that make b: (layers, r, q)."""
    pull: torch.Tensor
    """Strength of the prior per target token of each person: (users,)."""
    z: torch.Tensor
    """(users, q) deviations of everyone, in units of c."""

    @classmethod
    def of(cls, users: Sequence[Whitened], device: torch.device) -> "WhitenedSlab":
        """Stack copies of people's z, which take gradients.

        Args:
            users: of one basis and prior.
            device: where the copies are kept.
        """
        people = users[0].people
        basis, prior = people.basis, people.prior
        assert prior is not None
        factor = people.factor() * scale(prior)
        layers, rank = len(basis.shape.layers), basis.shape.rank
        to_A, to_b = factor.split([layers * rank * basis.columns, layers * rank])
        pull = factor.new_tensor([_UNIT / user.tokens for user in users])
        z = torch.stack([user.z for user in users])
        return cls(
            basis.shape,
            basis.R.to(device),
            basis.P.to(device),
            to_A.reshape(layers, rank, basis.columns, -1).to(device),
            to_b.reshape(layers, rank, -1).to(device),
            pull.to(device),
            z.to(device).requires_grad_(),
        )

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("personal shifts do not leave the edge")

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The z of everyone, the only tensor that is trained."""
        return [self.z]

    def some(self, users: Sequence[int]) -> "WhitenedSlab":
        """The z of these users only."""
        chosen = list(users)
        return replace(self, pull=self.pull[chosen], z=self.z[chosen])

    def delta(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """The shift (A P h + b) R of the hidden states h of the first U users.

        Args:
            index: place of the decoder layer among the shape's layers.
            hidden: (U, positions, d).

        Returns:
            (U, positions, d) changes to be added.
        """
        z = self.z[: len(hidden)]
        A = torch.einsum("uq,rkq->ukr", z, self.to_A[index])
        b = z @ self.to_b[index].T
        return torch.baddbmm(b[:, None], hidden @ self.P[index].T, A) @ self.R[index]

    def decays(self, weight_decay: float) -> list[float]:
        """No weight decay: the prior takes its place."""
        return [0.0]

    def tangent(self, gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Gradients (U, q) of the first U users' losses, with that of the prior added."""
        (gradient,) = gradients
        users = len(gradient)
        return [gradient + self.pull[:users, None] * self.z[:users]]

    def retract(self, users: int) -> None:
        """Leave z as it is."""

    @torch.no_grad()
    def copy_to(self, users: Sequence[Whitened]) -> None:
        """Write each person's z back."""
        for z, user in zip(self.z, users, strict=True):
            user.z.copy_(z)
