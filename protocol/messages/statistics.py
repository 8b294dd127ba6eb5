"""What clients tell of their pairs, as bytes, and what they are asked by.

For a group's directions: moments down to two rows, a view, probes, sums. For the choice of places: pulls.

Tensors stand one after another, little endian; their shapes follow from what both sides know. Numbers are
fp32 but for two: a view's axes are fp16, which tilts them by less than a thousandth and the same way for
everybody, and sums are fp64, for a search that is told rounded gradients can end elsewhere.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch

from fedperfit.protocol.messages.settings import ROWS
from fedperfit.protocol.shift.probe import Frame, Moments
from fedperfit.protocol.shift.selection import LayerGradient
from fedperfit.protocol.system.errors import InputError

_HALF = 2
"""Bytes of an fp16 number."""


@dataclass(frozen=True)
class View:
    """What a contributor needs of a frame to see states as the frame does."""

    axes: torch.Tensor
    """(layers, rank, d), values that fp16 can hold."""
    offsets: torch.Tensor
    """(2, layers, rank) fp32, where the axes see the means of p and of n."""
    scale: torch.Tensor
    """(layers,) fp32."""

    @classmethod
    def of(cls, frame: Frame) -> "View":
        """The frame's, but for rounding."""
        axes = frame.axes.half().double()
        means = torch.stack([frame.personalized_mean, frame.neutral_mean])
        offsets = (axes @ means[..., None]).squeeze(-1)
        return cls(axes.float(), offsets.float(), frame.scale.float())

    def coordinates(
        self, personalized: torch.Tensor, neutral: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(layers, pairs, d) each to (layers, pairs, rank), fp64."""
        p, n = (
            (side.double() @ self.axes.double().mT - offset[:, None]) / self.scale[:, None, None]
            for side, offset in zip((personalized, neutral), self.offsets.double(), strict=True)
        )
        return p, n

    def to_bytes(self) -> bytes:
        """As it travels."""
        return to_bytes(self.axes, dtype="<f2") + to_bytes(self.offsets, self.scale)

    @classmethod
    def from_bytes(cls, data: bytes, layers: int, hidden_size: int) -> "View":
        """The inverse; raises InputError for bytes that are no view of such a model, or not finite."""
        width = _HALF * hidden_size + 2 * 4  # of one layer's axis
        rank = (len(data) // layers - 4) // width
        if rank < 1 or len(data) != layers * (rank * width + 4):
            raise InputError(f"a view of {len(data)} bytes does not fit {layers} layers of {hidden_size}")
        end = _HALF * layers * rank * hidden_size
        (axes,) = from_bytes(data[:end], (layers, rank, hidden_size), dtype="<f2")
        offsets, scale = from_bytes(data[end:], (2, layers, rank), (layers,))
        if not bool((scale > 0).all()):
            raise InputError("a view whose scale is not positive")
        return cls(axes.float(), offsets, scale)


def moments_to_bytes(moments: Moments) -> bytes:
    """All but the number of pairs, which is the reply's count."""
    return to_bytes(moments.personalized_sum, moments.neutral_sum, moments.rows)


def moments_from_bytes(data: bytes, pairs: int, layers: int, hidden_size: int) -> Moments:
    """The inverse; raises InputError for another length, or values that are not finite."""
    one = (layers, hidden_size)
    return Moments(pairs, *from_bytes(data, one, one, (layers, ROWS, hidden_size)))


def sums_to_bytes(loss: torch.Tensor, gradient: torch.Tensor) -> bytes:
    """As `protocol.shift.probe.evaluate` returns them."""
    return to_bytes(loss, gradient, dtype="<f8")


def sums_from_bytes(data: bytes, probes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The inverse, fp64; raises InputError for another length, or values that are not finite."""
    layers, _, restarts = probes.shape
    loss, gradient = from_bytes(data, (layers, restarts), tuple(probes.shape), dtype="<f8")
    return loss, gradient


def probes_from_bytes(data: bytes, layers: int, rank: int) -> torch.Tensor:
    """(layers, rank + 1, restarts) fp64; raises InputError for another length, or values not finite."""
    restarts = len(data) // (4 * layers * (rank + 1))
    (probes,) = from_bytes(data, (layers, rank + 1, max(restarts, 1)))
    return probes.double()


def layer_gradient_to_bytes(layer_gradient: LayerGradient) -> bytes:
    """All but the number of pairs, which is the reply's count."""
    return to_bytes(layer_gradient.gradient, layer_gradient.length)


def layer_gradient_from_bytes(data: bytes, pairs: int, layers: int, hidden_size: int) -> LayerGradient:
    """The inverse; raises InputError for another length, or values that are not finite."""
    gradient, length = from_bytes(data, (layers, hidden_size), (layers,))
    return LayerGradient(gradient, length, pairs)


def to_bytes(*tensors: torch.Tensor, dtype: str = "<f4") -> bytes:
    """One after another; dtype: numpy's."""
    return b"".join(tensor.detach().cpu().numpy().astype(dtype).tobytes() for tensor in tensors)


def from_bytes(data: bytes, *shapes: tuple[int, ...], dtype: str = "<f4") -> list[torch.Tensor]:
    """The inverse; raises InputError for another length, or values that are not finite."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    width = np.dtype(dtype).itemsize
    if len(data) != width * sum(sizes):
        raise InputError(f"{len(data)} bytes of statistics, expected {width * sum(sizes)}")
    values = torch.from_numpy(np.frombuffer(data, dtype).copy())
    if not bool(values.isfinite().all()):
        raise InputError("statistics with values that are not finite")
    bounds = pairwise(accumulate(sizes, initial=0))
    return [values[start:end].reshape(shape) for (start, end), shape in zip(bounds, shapes, strict=True)]
