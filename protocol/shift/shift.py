"""A low-rank shift of hidden states (PerFit's equation, in the form of LoReFT).

    phi(h) = h + (W h + b - R h) R        h: (..., d)   R, W: (r, d)   b: (r,)   R R^T = I

One `Shift` holds the three tensors of every shifted layer stacked: R, W (layers, r, d), b (layers, r).
"""

from collections.abc import Sequence

import torch
from torch import nn

from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.system.errors import InputError

_MAX_NEWTON_SCHULZ = 30


class Shift(nn.Module):
    """The trainable tensors of one stage: phi(h) = h + (W h + b - R h) R in each shifted layer.

    h (..., d) is the layer's output at a shifted position, R and W are (r, d), b is (r,), and R R^T = I:
    the hidden state moves in r directions of its d. The three are stacked over the layers. After PerFit
    (ICLR 2026), in the form of LoReFT (Wu et al., 2024, arXiv:2404.03592).
    """

    def __init__(self, shape: ShiftShape, *, R: torch.Tensor, W: torch.Tensor, b: torch.Tensor) -> None:
        """Make a shift of given tensors, which become its parameters.

        Args:
            shape: Layers, rank, hidden size and positions.
            R: (layers, r, d), rows orthonormal.
            W: (layers, r, d).
            b: (layers, r).

        Raises:
            InputError: If a tensor's shape differs from `shape`.
        """
        super().__init__()
        slab = (len(shape.layers), shape.rank, shape.hidden_size)
        for name, tensor, expected in (("R", R, slab), ("W", W, slab), ("b", b, slab[:2])):
            if tuple(tensor.shape) != expected:
                raise InputError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")
        self.shape = shape
        """Layers, rank, hidden size and positions."""
        self.R = nn.Parameter(R)
        """Orthonormal rows that span the shifted subspace: (layers, r, d)."""
        self.W = nn.Parameter(W)
        """Linear map into that subspace: (layers, r, d)."""
        self.b = nn.Parameter(b)
        """Bias of each row of R: (layers, r)."""

    @classmethod
    def identity(cls, shape: ShiftShape, *, seed: int) -> "Shift":
        """Make W = R and b = 0, R with random orthonormal rows: phi(h) = h, yet its gradient is not zero.

        Args:
            shape: Layers, rank, hidden size and positions.
            seed: Seed of R.
        """
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
        """Compute (W h + b - R h) R of one shifted layer.

        Args:
            index: Index of the layer in `shape.layers`.
            hidden: (..., d).

        Returns:
            (..., d), what the shift adds to `hidden`.
        """
        R, W, b = self.R[index], self.W[index], self.b[index]
        return (hidden @ (W - R).T + b) @ R

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Project R's gradient on the tangent space of orthonormal rows: G <- G - sym(G R^T) R."""
        if self.R.grad is not None:
            inner = self.R.grad @ self.R.mT
            self.R.grad -= 0.5 * (inner + inner.mT) @ self.R

    @torch.no_grad()
    def retract(self) -> None:
        """Bring R back to orthonormal rows after an optimizer step."""
        self.R.copy_(newton_schulz(self.R))


def newton_schulz(R: torch.Tensor) -> torch.Tensor:
    """Make rows orthonormal by iterating R <- (1.5 I - 0.5 R R^T) R.

    A step squares the error, so one that starts below 1e-3 ends in rounding error. After the largest
    step Adam can take (r = 32) it takes two at a rate of 1e-4, five at 1e-2 and d = 192, eight at 1e-2
    and d = 4096. Beyond an error of 1 a step could diverge: rows that long are scaled down first.

    Args:
        R: (..., r, d) of full rank.
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
    """Cast hidden states to the dtype shifts are computed in: fp32, or a wider one the model has."""
    return hidden.to(torch.promote_types(hidden.dtype, torch.float32))


def compose(
    shifts: Sequence[Shift], layer: int, hidden: torch.Tensor, *, additive: bool = False
) -> torch.Tensor:
    """Apply the shifts of one decoder layer, in fp32 at least.

    Sequential, h <- phi_n(...phi_1(h)), or additive, h + sum of the deltas at h.

    Args:
        shifts: Shifts in the order they act; those without this layer are skipped.
        layer: Number of the decoder layer.
        hidden: (..., d), its output.
        additive: Add the deltas at `hidden` instead of applying one shift after the other.

    Returns:
        (..., d), in the dtype of `hidden`.
    """
    shifted = widened(hidden)
    origin = shifted
    for shift in shifts:
        if layer in shift.shape.layers:
            index = shift.shape.layers.index(layer)
            shifted = shifted + shift.delta(index, origin if additive else shifted)
    return shifted.to(hidden.dtype)
