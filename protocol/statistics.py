"""What travels for a group's directions, as bytes: moments down to two rows, a view, probes, sums.

Tensors stand one after another, fp32 and little endian; their shapes follow from what both sides know. A
view's axes are fp16, which tilts them by less than a thousandth and the same way for everybody.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch

from protocol.errors import InputError
from protocol.probe import Frame, Moments
from protocol.settings import ROWS

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
        axes = self.axes.half().contiguous().view(torch.uint8).numpy().tobytes()
        return axes + to_bytes(self.offsets, self.scale)

    @classmethod
    def from_bytes(cls, data: bytes, layers: int, hidden_size: int) -> "View":
        """The inverse; raises InputError for bytes that are no view of such a model, or not finite."""
        width = _HALF * hidden_size + 2 * 4  # of one layer's axis
        rank = (len(data) // layers - 4) // width
        if rank < 1 or len(data) != layers * (rank * width + 4):
            raise InputError(f"a view of {len(data)} bytes does not fit {layers} layers of {hidden_size}")
        count = layers * rank * hidden_size
        axes = torch.from_numpy(np.frombuffer(data, "<f2", count).astype(np.float32))
        if not bool(axes.isfinite().all()):
            raise InputError("values that are not finite")
        rest = data[_HALF * count :]
        offsets, scale = from_bytes(rest, (2, layers, rank), (layers,))
        if not bool((scale > 0).all()):
            raise InputError("a view whose scale is not positive")
        return cls(axes.reshape(layers, rank, hidden_size), offsets, scale)


def moments_to_bytes(moments: Moments) -> bytes:
    """All but the number of pairs, which is the reply's count."""
    return to_bytes(moments.personalized_sum, moments.neutral_sum, moments.rows)


def moments_from_bytes(data: bytes, pairs: int, layers: int, hidden_size: int) -> Moments:
    """The inverse; raises InputError for another length, or values that are not finite."""
    one = (layers, hidden_size)
    return Moments(pairs, *from_bytes(data, one, one, (layers, ROWS, hidden_size)))


def to_bytes(*tensors: torch.Tensor) -> bytes:
    """fp32, little endian, one after another."""
    return b"".join(tensor.detach().cpu().numpy().astype("<f4").tobytes() for tensor in tensors)


def from_bytes(data: bytes, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    """The inverse; raises InputError for another length, or values that are not finite."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    if len(data) != 4 * sum(sizes):
        raise InputError(f"{len(data)} bytes of statistics, expected {4 * sum(sizes)}")
    values = torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32))
    if not bool(values.isfinite().all()):
        raise InputError("values that are not finite")
    bounds = pairwise(accumulate(sizes, initial=0))
    return [values[start:end].reshape(shape) for (start, end), shape in zip(bounds, shapes, strict=True)]
