"""The shifts of many users side by side: R, W (users, layers, r, d), b (users, layers, r).

Every operation is batched over the users and mixes none of them, so each user's numbers are those it
would have alone, up to the rounding of differently shaped matrix products.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift, newton_schulz, widened

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


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
        """The shifts of these users only, without gradients."""
        return Slab(self.shape, *(tensor.detach()[list(users)] for tensor in self.tensors))

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

    @torch.no_grad()
    def copy_to(self, shifts: Sequence[Shift]) -> None:
        """Write each user's tensors into their own shift."""
        for tensors, shift in zip(zip(*self.tensors, strict=True), shifts, strict=True):
            for target, source in zip((shift.R, shift.W, shift.b), tensors, strict=True):
                target.copy_(source)


@dataclass(frozen=True)
class Stack:
    """Shifts that act on users' hidden states: those they share, then each user's own."""

    shared: Sequence[Shift]
    """Shifts of all users, in the order in which they act."""
    own: Slab | None
    """Shifts of one user each, if there are any."""
    additive: bool
    """Whether every shift of a layer acts on the layer's own output, not on what the former ones made."""

    def some(self, users: Sequence[int]) -> "Stack":
        """The shifts that act on these users only."""
        return Stack(self.shared, self.own.some(users) if self.own is not None else None, self.additive)

    @property
    def parts(self) -> list[Shift | Slab]:
        """Shared and own shifts, in the order in which they act."""
        return [*self.shared, *([self.own] if self.own is not None else [])]

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
    """AdamW (Loshchilov and Hutter, 2019) for a slab: no decay on R, whose rows stay orthonormal.

    Differs from torch's in having one rate, one clip and one gradient norm per user, who all start at the
    same step. A user's update depends on their own gradient alone.
    """

    def __init__(self, slab: Slab, *, weight_decay: float, clip_norm: float) -> None:
        """Start with zero moments.

        Args:
            slab: shifts to be trained in place.
            weight_decay: of W and b.
            clip_norm: greatest norm of one user's gradient.
        """
        self.slab, self.clip_norm = slab, clip_norm
        self.decays = [0.0, weight_decay, weight_decay]
        self.moments = [(torch.zeros_like(t), torch.zeros_like(t)) for t in slab.tensors]
        self.steps = 0
        self.failed = torch.zeros(len(slab.R), dtype=torch.bool, device=slab.R.device)
        """(users,) bool, true once a user's loss or gradient was not finite; their shift then stays."""

    @torch.no_grad()
    def step(self, losses: torch.Tensor, gradients: Sequence[torch.Tensor], rates: torch.Tensor) -> None:
        """Take one step of the first U users.

        Args:
            losses: (U,), only looked at for values that are not finite.
            gradients: gradients of R, W and b, each with all users first.
            rates: (U,) learning rates.
        """
        self.steps += 1
        users = len(rates)
        active = [gradient[:users] for gradient in gradients]
        R = self.slab.R[:users]
        inner = active[0] @ R.mT
        active[0] = active[0] - 0.5 * (inner + inner.mT) @ R
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
        self.slab.R[:users] = newton_schulz(self.slab.R[:users])
