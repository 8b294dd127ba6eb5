"""The shifts of many users side by side: R, W (users, layers, r, d), b (users, layers, r).

A `CoordinateSlab` holds coordinates in one basis: A (users, layers, r, k), b (users, layers, r). Every
operation is batched over the users and mixes none of them, so each user's numbers are those it would have
alone, up to the rounding of differently shaped matrix products.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import torch

from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift, newton_schulz, widened

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class OwnShifts(Protocol):
    """What users' own shifts must do to act in a stack and to be trained."""

    @property
    def shape(self) -> ShiftShape:
        """Layers, rank, hidden size and positions of every user's shift."""

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What is trained, users first."""

    def some(self, users: Sequence[int]) -> "OwnShifts":
        """The shifts of these users only."""

    def delta(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Changes (U, positions, d) of the hidden states of the first U users at one of the layers."""

    def decays(self, weight_decay: float) -> list[float]:
        """Weight decay of each of `tensors`."""

    def tangent(self, gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Gradients (U, ...) along which the tensors of the first U users move."""

    def retract(self, users: int) -> None:
        """Bring the tensors of the first users back to where they must be."""


@dataclass(frozen=True, repr=False)
class Slab:
    """Shifts of one shape, one per user, to apply or to train. Like a personal shift it stays at the edge."""

    shape: ShiftShape
    """Layers, rank, hidden size and positions of every user's shift."""
    R: torch.Tensor
    """(users, layers, r, d), rows orthonormal."""
    W: torch.Tensor
    """(users, layers, r, d) weights of the shift."""
    b: torch.Tensor
    """(users, layers, r) biases of the shift."""

    @classmethod
    def of(cls, shifts: Sequence[Shift], device: torch.device, *, train: bool = False) -> "Slab":
        """Stack copies of users' shifts.

        Args:
            shifts: of one shape, one per user.
            device: where the copies are kept.
            train: whether the copies take gradients.
        """
        stacked = [torch.stack([getattr(s, name).detach() for s in shifts]) for name in ("R", "W", "b")]
        return cls(shifts[0].shape, *(tensor.to(device).requires_grad_(train) for tensor in stacked))

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("personal shifts do not leave the edge")

    @property
    def tensors(self) -> list[torch.Tensor]:
        """R, W and b, in this order."""
        return [self.R, self.W, self.b]

    def some(self, users: Sequence[int]) -> "Slab":
        """The shifts of these users only."""
        return Slab(self.shape, *(tensor[list(users)] for tensor in self.tensors))

    def delta(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """PerFit's shift (W h + b - R h) R of the hidden states h of the first U users.

        Args:
            index: place of the decoder layer among the shape's layers.
            hidden: (U, positions, d).

        Returns:
            (U, positions, d) changes to be added.
        """
        R, W, b = (tensor[: len(hidden), index] for tensor in self.tensors)
        return torch.baddbmm(b[:, None], hidden, (W - R).mT) @ R

    def decays(self, weight_decay: float) -> list[float]:
        """Weight decay of each of `tensors`: none on R."""
        return [0.0, weight_decay, weight_decay]

    def tangent(self, gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Gradients (U, ...) of the first U users, R's projected on the tangent space of orthonormal rows."""
        R = self.R[: len(gradients[0])]
        inner = gradients[0] @ R.mT
        return [gradients[0] - 0.5 * (inner + inner.mT) @ R, *gradients[1:]]

    def retract(self, users: int) -> None:
        """Bring R of the first users back to orthonormal rows."""
        self.R[:users] = newton_schulz(self.R[:users])

    @torch.no_grad()
    def copy_to(self, shifts: Sequence[Shift]) -> None:
        """Write each user's tensors into their own shift."""
        for tensors, shift in zip(zip(*self.tensors, strict=True), shifts, strict=True):
            for target, source in zip((shift.R, shift.W, shift.b), tensors, strict=True):
                target.copy_(source)


@dataclass(frozen=True, repr=False)
class CoordinateSlab:
    """Coordinates of one user each in a basis that they share, to train. Stays at the edge like a slab."""

    shape: ShiftShape
    """Layers, rank, hidden size and positions of every user's shift."""
    R: torch.Tensor
    """(layers, r, d), frozen."""
    P: torch.Tensor
    """(layers, k, d), frozen."""
    A: torch.Tensor
    """(users, layers, r, k) coordinates of W - R."""
    b: torch.Tensor
    """(users, layers, r) biases."""

    @classmethod
    def of(cls, users: Sequence[Coordinates], device: torch.device) -> "CoordinateSlab":
        """Stack copies of users' coordinates, which take gradients.

        Args:
            users: of one basis, one per user.
            device: where the copies are kept.
        """
        basis: Basis = users[0].basis
        A, b = (torch.stack([getattr(user, name) for user in users]) for name in ("A", "b"))
        R, P = basis.R.to(device), basis.P.to(device)
        return cls(basis.shape, R, P, A.to(device).requires_grad_(), b.to(device).requires_grad_())

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("personal shifts do not leave the edge")

    @property
    def tensors(self) -> list[torch.Tensor]:
        """A and b, in this order."""
        return [self.A, self.b]

    def some(self, users: Sequence[int]) -> "CoordinateSlab":
        """The coordinates of these users only."""
        A, b = (tensor[list(users)] for tensor in self.tensors)
        return CoordinateSlab(self.shape, self.R, self.P, A, b)

    def delta(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """The shift (A P h + b) R of the hidden states h of the first U users; W is never made.

        Args:
            index: place of the decoder layer among the shape's layers.
            hidden: (U, positions, d).

        Returns:
            (U, positions, d) changes to be added.
        """
        A, b = (tensor[: len(hidden), index] for tensor in self.tensors)
        return torch.baddbmm(b[:, None], hidden @ self.P[index].T, A.mT) @ self.R[index]

    def decays(self, weight_decay: float) -> list[float]:
        """Weight decay of A and of b."""
        return [weight_decay, weight_decay]

    def tangent(self, gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Gradients as they are: coordinates are free."""
        return list(gradients)

    def retract(self, users: int) -> None:
        """Leave the coordinates as they are."""

    @torch.no_grad()
    def copy_to(self, users: Sequence[Coordinates]) -> None:
        """Write each user's tensors into their own coordinates."""
        for A, b, user in zip(*self.tensors, users, strict=True):
            user.A.copy_(A)
            user.b.copy_(b)


@dataclass(frozen=True)
class Stack:
    """Shifts that act on users' hidden states: those they share, then each user's own."""

    shared: Sequence[Shift]
    """Shifts of all users, in the order in which they act."""
    own: OwnShifts | None
    """Shifts of one user each, if there are any."""
    additive: bool
    """Whether every shift of a layer acts on the layer's own output, not on what the former ones made."""

    def some(self, users: Sequence[int]) -> "Stack":
        """The shifts that act on these users only."""
        return Stack(self.shared, self.own.some(users) if self.own is not None else None, self.additive)

    @property
    def parts(self) -> list[Shift | OwnShifts]:
        """Shared and own shifts, in the order in which they act."""
        return [*self.shared, *([self.own] if self.own is not None else [])]

    @property
    def positions(self) -> Positions | None:
        """Tokens of each prompt on which the shifts act; None without shifts."""
        return self.parts[0].shape.positions if self.parts else None

    @property
    def layers(self) -> list[int]:
        """Numbers of the decoder layers with a shift, ascending."""
        return sorted({layer for part in self.parts for layer in part.shape.layers})

    def __call__(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the shifts of one layer, computing in fp32 at least.

        Args:
            layer: decoder layer; one without a shift returns its input.
            hidden: (users, positions, d).

        Returns:
            (users, positions, d) in the type of `hidden`.
        """
        origin = shifted = widened(hidden)
        for part in self.parts:
            if layer in part.shape.layers:
                index = part.shape.layers.index(layer)
                shifted = shifted + part.delta(index, origin if self.additive else shifted)
        return shifted.to(hidden.dtype)


@dataclass(frozen=True)
class BatchPositions:
    """The shifted positions of a batch, gathered by user so that slabs apply to them in one product."""

    index: torch.Tensor
    """(users, positions) into the flattened (rows * tokens); users with fewer positions repeat their last."""
    distinct: torch.Tensor | None
    """Entries of the flattened (users * positions) that are no repetitions; None for all."""

    @classmethod
    def of(cls, mask: torch.Tensor, owners: Sequence[int], device: torch.device) -> "BatchPositions":
        """Gather the shifted positions of each user.

        Args:
            mask: (rows, tokens) bool on the CPU, true at shifted positions.
            owners: user of each row.
            device: where the hidden states are.
        """
        width = mask.shape[1]
        positions: list[list[int]] = [[] for _ in range(max(owners) + 1)]
        for row, column in mask.nonzero().tolist():
            positions[owners[row]].append(row * width + column)
        most = max(map(len, positions))
        index = torch.tensor([(own + most * own[-1:])[:most] for own in positions])
        distinct = None
        if any(len(own) < most for own in positions):
            entries = [torch.arange(len(own)) + most * user for user, own in enumerate(positions)]
            distinct = torch.cat(entries).to(device)
        return cls(index.to(device), distinct)

    def change(self, stack: Stack, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the shifts of one layer at these positions.

        Args:
            stack: shifts of the users.
            layer: decoder layer.
            hidden: (rows, tokens, d) output of the layer.

        Returns:
            (rows, tokens, d), equal to `hidden` at all other positions.
        """
        flat = hidden.flatten(0, 1)
        index = self.index.flatten()
        shifted = stack(layer, flat[index].view(*self.index.shape, -1)).flatten(0, 1)
        if self.distinct is not None:
            index, shifted = index[self.distinct], shifted[self.distinct]
        return flat.index_put((index,), shifted).view_as(hidden)


class AdamW:
    """AdamW (Loshchilov and Hutter, 2019) for a slab, whose own tensors decay and stay where they must.

    Differs from torch's in having one rate, one clip and one gradient norm per user, who all start at the
    same step. A user's update depends on their own gradient alone.
    """

    def __init__(self, slab: OwnShifts, *, weight_decay: float, clip_norm: float) -> None:
        """Start with zero moments.

        Args:
            slab: shifts to be trained in place.
            weight_decay: of what decays.
            clip_norm: greatest norm of one user's gradient.
        """
        self.slab, self.clip_norm = slab, clip_norm
        self.decays = slab.decays(weight_decay)
        self.moments = [(torch.zeros_like(t), torch.zeros_like(t)) for t in slab.tensors]
        self.steps = 0
        first = slab.tensors[0]
        self.failed = torch.zeros(len(first), dtype=torch.bool, device=first.device)
        """(users,) bool, true once a user's loss or gradient was not finite; their shift then stays."""

    @torch.no_grad()
    def step(self, losses: torch.Tensor, gradients: Sequence[torch.Tensor], rates: torch.Tensor) -> None:
        """Take one step of the first U users.

        Args:
            losses: (U,), only looked at for values that are not finite.
            gradients: gradients of the slab's tensors, each with all users first.
            rates: (U,) learning rates.
        """
        self.steps += 1
        users = len(rates)
        active = self.slab.tangent([gradient[:users] for gradient in gradients])
        norm = torch.stack([g.flatten(1).square().sum(1) for g in active]).sum(0).sqrt()
        self.failed[:users] |= ~(losses.isfinite() & norm.isfinite())
        finite = ~self.failed[:users]
        scale = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        first, second = (1 - beta**self.steps for beta in _BETAS)
        for tensor, decay, moments, gradient in zip(
            self.slab.tensors, self.decays, self.moments, active, strict=True
        ):
            each = (-1, *[1] * (gradient.dim() - 1))
            clipped = torch.where(finite.view(each), gradient * scale.view(each), 0.0)
            mean, square = (moment[:users] for moment in moments)
            mean.lerp_(clipped, 1 - _BETAS[0])
            square.mul_(_BETAS[1]).addcmul_(clipped, clipped, value=1 - _BETAS[1])
            step = mean / first / (square.sqrt() / second**0.5 + _EPSILON)
            rate = torch.where(finite, rates, 0.0).view(each)
            tensor[:users] = tensor[:users] * (1 - rate * decay) - rate * step
        self.slab.retract(users)
