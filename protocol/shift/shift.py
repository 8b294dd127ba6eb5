"""A low-rank shift of hidden states (PerFit's equation; the form is LoReFT's).

    phi(h) = h + (W h + b - R h) R        h: (..., d)   R, W: (r, d)   b: (r,)   R R^T = I

One `Shift` holds the three tensors of every shifted layer as slabs: R, W (layers, r, d), b (layers, r).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError

_MAX_NEWTON_SCHULZ = 30


@dataclass(frozen=True)
class ShiftShape:
    """Where a shift acts and how large it is."""

    layers: tuple[int, ...]
    """Decoder layers whose output is shifted, ascending, counted from 0."""
    rank: int
    """r, rows of R and W in each layer."""
    hidden_size: int
    """d of the base model."""
    positions: Positions
    """Prompt positions the shift acts on."""

    def __post_init__(self) -> None:
        if self.hidden_size < 1:
            raise InputError(f"hidden_size={self.hidden_size}: must be at least 1")
        if not 1 <= self.rank <= self.hidden_size:
            raise InputError(f"rank={self.rank} is outside 1..{self.hidden_size}, the hidden size")
        if not self.layers:
            raise InputError("layers is empty: a shift needs at least one layer")
        if list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise InputError(f"layers={self.layers}: must be distinct, ascending and not negative")

    @property
    def parameters(self) -> int:
        """n (2 r d + r) for n layers (reference: PerFit's parameter table)."""
        return len(self.layers) * (2 * self.rank * self.hidden_size + self.rank)

    def check_depth(self, depth: int) -> None:
        """Raise InputError when a layer lies beyond a model of `depth` decoder layers."""
        if self.layers[-1] >= depth:
            raise InputError(
                f"layer {self.layers[-1]} is beyond the base model, whose layers are 0..{depth - 1}"
            )

    def check_effect(self, depth: int) -> None:
        """Raise InputError when such a shift could change no answer of a model of `depth` layers."""
        if self.layers[0] == depth - 1 and not self.positions.last:
            raise InputError(
                f"positions={self.positions} after the last layer change no answer: shift a lower one"
            )


class Shift(nn.Module):
    """The trainable tensors of one stage; the identity when made by `identity`."""

    def __init__(self, shape: ShiftShape, *, R: torch.Tensor, W: torch.Tensor, b: torch.Tensor) -> None:
        """R, W: (layers, r, d); b: (layers, r). Raises InputError when a tensor's shape differs."""
        super().__init__()
        slab = (len(shape.layers), shape.rank, shape.hidden_size)
        for name, tensor, expected in (("R", R, slab), ("W", W, slab), ("b", b, slab[:2])):
            if tuple(tensor.shape) != expected:
                raise InputError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")
        self.shape = shape
        self.R = nn.Parameter(R)
        self.W = nn.Parameter(W)
        self.b = nn.Parameter(b)

    @classmethod
    def identity(cls, shape: ShiftShape, *, seed: int) -> "Shift":
        """W = R, b = 0 with random orthonormal rows of R: phi(h) = h, yet its gradient is not zero."""
        generator = torch.Generator().manual_seed(seed)
        size = (len(shape.layers), shape.hidden_size, shape.rank)
        columns, _ = torch.linalg.qr(torch.randn(size, generator=generator, dtype=torch.float64))
        R = columns.transpose(1, 2).float().contiguous()
        return cls(shape, R=R, W=R.clone(), b=torch.zeros(R.shape[:2]))

    def copy(self) -> "Shift":
        """Return a collective shift of its own tensors with the same values, ready to be trained.

        Raises:
            TypeError: For any other type of shift, so that a personal one cannot become a collective one.
        """
        if type(self) is not Shift:
            raise TypeError(f"{type(self).__name__} cannot be copied: only a collective shift can")
        R, W, b = (tensor.detach().clone() for tensor in (self.R, self.W, self.b))
        return Shift(self.shape, R=R, W=W, b=b)

    def delta(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """(W h + b - R h) R of the `index`-th shifted layer; hidden and result: (..., d)."""
        R, W, b = self.R[index], self.W[index], self.b[index]
        return (hidden @ (W - R).T + b) @ R

    @torch.no_grad()
    def project_gradient(self) -> None:
        """G <- G - sym(G R^T) R: keep the part of R's gradient tangent to orthonormal rows."""
        if self.R.grad is not None:
            inner = self.R.grad @ self.R.mT
            self.R.grad -= 0.5 * (inner + inner.mT) @ self.R

    @torch.no_grad()
    def retract(self) -> None:
        """Bring R back to orthonormal rows after an optimizer step."""
        self.R.copy_(newton_schulz(self.R))


def newton_schulz(R: torch.Tensor) -> torch.Tensor:
    """R <- (1.5 I - 0.5 R R^T) R until the rows are orthonormal. R: (..., r, d) of full rank.

    A step squares the error, so one that starts below 1e-3 ends in rounding error. After the largest
    step Adam can take (r = 32) it takes two at a rate of 1e-4, five at 1e-2 and d = 192, eight at 1e-2
    and d = 4096. Beyond an error of 1 a step could diverge: rows that long are scaled down first.
    """
    identity = torch.eye(R.shape[-2], dtype=R.dtype, device=R.device)
    for _ in range(_MAX_NEWTON_SCHULZ):
        gram = R @ R.mT
        error = (gram - identity).abs().sum(dim=-1).amax()
        if error > 1:
            norm = gram.abs().sum(dim=-1).amax(dim=-1)[..., None, None].clamp(min=1)
            R, gram = R / norm.sqrt(), gram / norm
        R = (1.5 * identity - 0.5 * gram) @ R
        if not error > 1e-3:  # nor NaN
            break
    return R


def widened(hidden: torch.Tensor) -> torch.Tensor:
    """In the dtype shifts are computed in: fp32, whatever smaller one the model has."""
    return hidden.to(torch.promote_types(hidden.dtype, torch.float32))


def compose(
    shifts: Sequence[Shift], layer: int, hidden: torch.Tensor, *, additive: bool = False
) -> torch.Tensor:
    """The shifts of decoder layer `layer` applied to hidden (..., d), in fp32 at least.

    Sequential, h <- phi_n(...phi_1(h)), or additive, h + sum of the deltas at h.
    """
    shifted = widened(hidden)
    origin = shifted
    for shift in shifts:
        if layer in shift.shape.layers:
            index = shift.shape.layers.index(layer)
            shifted = shifted + shift.delta(index, origin if additive else shifted)
    return shifted.to(hidden.dtype)
