"""The shifts of many users side by side: R, W (users, layers, r, d), b (users, layers, r).

Every operation is batched over the users and mixes none of them, so each user's numbers are those it
would have alone, up to the rounding of differently shaped matrix products.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from fedperfit.protocol.shift.shift import Shift, ShiftShape, newton_schulz, widened

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


@dataclass(frozen=True, repr=False)
class Slab:
    """Users' shifts of one shape, to apply or to train. Like a personal shift it does not leave the edge."""

    shape: ShiftShape
    R: torch.Tensor
    W: torch.Tensor
    b: torch.Tensor

    @classmethod
    def of(cls, shifts: Sequence[Shift], device: torch.device, *, train: bool = False) -> "Slab":
        """Copies of `shifts`."""
        stacked = [torch.stack([getattr(s, name).detach() for s in shifts]) for name in ("R", "W", "b")]
        return cls(shifts[0].shape, *(tensor.to(device).requires_grad_(train) for tensor in stacked))

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("personal shifts do not leave the edge")

    @property
    def tensors(self) -> list[torch.Tensor]:
        """R, W, b."""
        return [self.R, self.W, self.b]

    def some(self, users: Sequence[int]) -> "Slab":
        """Of these users only, to apply."""
        return Slab(self.shape, *(tensor.detach()[list(users)] for tensor in self.tensors))

    def delta(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """(W h + b - R h) R of each of the first U users; hidden and result: (U, positions, d)."""
        R, W, b = (tensor[: len(hidden), index] for tensor in self.tensors)
        return torch.baddbmm(b[:, None], hidden, (W - R).mT) @ R

    @torch.no_grad()
    def copy_to(self, shifts: Sequence[Shift]) -> None:
        """Write the users' tensors into their shifts."""
        for tensors, shift in zip(zip(*self.tensors, strict=True), shifts, strict=True):
            for target, source in zip((shift.R, shift.W, shift.b), tensors, strict=True):
                target.copy_(source)


@dataclass(frozen=True)
class Stack:
    """What acts on users' hidden states: shifts they share, then each user's own."""

    shared: Sequence[Shift]
    own: Slab | None
    additive: bool

    def some(self, users: Sequence[int]) -> "Stack":
        """Of these users only."""
        return Stack(self.shared, self.own.some(users) if self.own is not None else None, self.additive)

    @property
    def parts(self) -> list[Shift | Slab]:
        """In the order in which they act."""
        return [*self.shared, *([self.own] if self.own is not None else [])]

    @property
    def layers(self) -> list[int]:
        """Decoder layers with a shift, ascending."""
        return sorted({layer for part in self.parts for layer in part.shape.layers})

    def __call__(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """The shifts of `layer` applied to hidden (users, positions, d), in fp32 at least."""
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
    """(users, positions) into the flattened (rows * tokens); users with fewer repeat one of theirs."""
    kept: torch.Tensor | None
    """Which of the flattened (users * positions) are not repetitions; None is all."""

    @classmethod
    def of(cls, mask: torch.Tensor, owners: Sequence[int], device: torch.device) -> "BatchPositions":
        """mask: (rows, tokens) bool on the CPU, true at shifted positions; owners: user of each row."""
        width = mask.shape[1]
        found: list[list[int]] = [[] for _ in range(max(owners) + 1)]
        for row, column in mask.nonzero().tolist():
            found[owners[row]].append(row * width + column)
        most = max(map(len, found))
        index = torch.tensor([(user + most * user[-1:])[:most] for user in found])
        kept = None
        if any(len(user) < most for user in found):
            kept = torch.cat([torch.arange(len(user)) + most * n for n, user in enumerate(found)]).to(device)
        return cls(index.to(device), kept)

    def change(self, stack: Stack, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (rows, tokens, d) with the stack applied at these positions."""
        flat = hidden.flatten(0, 1)
        index = self.index.flatten()
        shifted = stack(layer, flat[index].view(*self.index.shape, -1)).flatten(0, 1)
        if self.kept is not None:
            index, shifted = index[self.kept], shifted[self.kept]
        return flat.index_put((index,), shifted).view_as(hidden)


class AdamW:
    """AdamW for a slab in which all users began together: no decay on R, R kept orthonormal.

    Differs from torch's in having one rate, one clip and one gradient norm per user. A user's update
    depends on its own gradient alone.
    """

    def __init__(self, slab: Slab, *, weight_decay: float, clip_norm: float) -> None:
        self.slab, self.clip_norm = slab, clip_norm
        self.decays = [0.0, weight_decay, weight_decay]
        self.moments = [(torch.zeros_like(t), torch.zeros_like(t)) for t in slab.tensors]
        self.steps = 0
        self.failed = torch.zeros(len(slab.R), dtype=torch.bool, device=slab.R.device)
        """(users,) whose loss or gradient was not finite; they stay where they are."""

    @torch.no_grad()
    def step(self, losses: torch.Tensor, gradients: Sequence[torch.Tensor], rates: torch.Tensor) -> None:
        """One step of the first U users. losses, rates: (U,); gradients of R, W, b: (users, ...)."""
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
