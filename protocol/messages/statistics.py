"""The byte encoding of the statistics that clients send, and of the requests for them.

For a group's directions: moments with two rows, a view, probes, sums. For the choice of layers: layer
gradients.

Tensors stand one after another, little endian; their shapes follow from what both sides know. Numbers are
fp32 with two exceptions: a view's axes are fp16, which tilts them by less than a thousandth and the same
way for everybody, and sums are fp64, because a search that gets rounded gradients can end elsewhere.
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
"""Size of an fp16 number, in bytes."""


@dataclass(frozen=True)
class View:
    """The part of a frame that a contributor needs to see states as the frame does."""

    axes: torch.Tensor
    """Axes of the coordinates: (layers, rank, d), values that fp16 can hold."""
    offsets: torch.Tensor
    """Coordinates of the means of p and of n: (2, layers, rank) fp32."""
    scale: torch.Tensor
    """Divisor of the coordinates: (layers,) fp32."""

    @classmethod
    def of(cls, frame: Frame) -> "View":
        """Make the view of a frame, equal to it up to rounding."""
        axes = frame.axes.half().double()
        means = torch.stack([frame.personalized_mean, frame.neutral_mean])
        offsets = (axes @ means[..., None]).squeeze(-1)
        return cls(axes.float(), offsets.float(), frame.scale.float())

    def coordinates(
        self, personalized: torch.Tensor, neutral: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Project hidden states on the axes.

        Args:
            personalized: (layers, pairs, d) states of the personalized texts.
            neutral: (layers, pairs, d) states of the neutral texts.

        Returns:
            Coordinates of both, (layers, pairs, rank) fp64 each.
        """
        p, n = (
            (side.double() @ self.axes.double().mT - offset[:, None]) / self.scale[:, None, None]
            for side, offset in zip((personalized, neutral), self.offsets.double(), strict=True)
        )
        return p, n

    def to_bytes(self) -> bytes:
        """Encode for the `view` of a probe request."""
        return to_bytes(self.axes, dtype="<f2") + to_bytes(self.offsets, self.scale)

    @classmethod
    def from_bytes(cls, data: bytes, layers: int, hidden_size: int) -> "View":
        """Decode what `to_bytes` encoded.

        Args:
            data: The encoded view; its length gives the rank.
            layers: Decoder layers of the base model.
            hidden_size: Hidden size d of the base model.

        Raises:
            InputError: If the bytes do not fit such a model, or a value is not finite.
        """
        width = _HALF * hidden_size + 2 * 4  # of one layer's axis
        rank = (len(data) // layers - 4) // width
        if rank < 1 or len(data) != layers * (rank * width + 4):
            raise InputError(f"a view of {len(data)} bytes does not fit {layers} layers of {hidden_size}")
        end = _HALF * layers * rank * hidden_size
        (axes,) = from_bytes(data[:end], (layers, rank, hidden_size), dtype="<f2")
        offsets, scale = from_bytes(data[end:], (2, layers, rank), (layers,))
        if not bool((scale > 0).all()):
            raise InputError("the scale of the view is not positive")
        return cls(axes.float(), offsets, scale)


def moments_to_bytes(moments: Moments) -> bytes:
    """Encode moments without their number of pairs, which the reply's count holds."""
    return to_bytes(moments.personalized_sum, moments.neutral_sum, moments.rows)


def moments_from_bytes(data: bytes, pairs: int, layers: int, hidden_size: int) -> Moments:
    """Decode what `moments_to_bytes` encoded.

    Args:
        data: The encoded moments.
        pairs: Number of pairs, from the reply's count.
        layers: Decoder layers of the base model.
        hidden_size: Hidden size d of the base model.

    Raises:
        InputError: If the length is wrong, or a value is not finite.
    """
    vectors = (layers, hidden_size)
    return Moments(pairs, *from_bytes(data, vectors, vectors, (layers, ROWS, hidden_size)))


def sums_to_bytes(loss: torch.Tensor, gradient: torch.Tensor) -> bytes:
    """Encode what `protocol.shift.probe.evaluate` returns.

    Args:
        loss: (layers, restarts).
        gradient: (layers, rank + 1, restarts).
    """
    return to_bytes(loss, gradient, dtype="<f8")


def sums_from_bytes(data: bytes, probes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode what `sums_to_bytes` encoded.

    Args:
        data: The encoded sums.
        probes: (layers, rank + 1, restarts), the probes they belong to.

    Returns:
        Losses (layers, restarts) and gradients, of the shape of `probes`; fp64.

    Raises:
        InputError: If the length is wrong, or a value is not finite.
    """
    layers, _, restarts = probes.shape
    loss, gradient = from_bytes(data, (layers, restarts), tuple(probes.shape), dtype="<f8")
    return loss, gradient


def probes_from_bytes(data: bytes, layers: int, rank: int) -> torch.Tensor:
    """Decode probes that `to_bytes` encoded.

    Args:
        data: The encoded probes; its length gives the number of restarts.
        layers: Decoder layers of the base model.
        rank: Dimension of the coordinates.

    Returns:
        (layers, rank + 1, restarts) fp64.

    Raises:
        InputError: If the length is wrong, or a value is not finite.
    """
    restarts = len(data) // (4 * layers * (rank + 1))
    (probes,) = from_bytes(data, (layers, rank + 1, max(restarts, 1)))
    return probes.double()


def layer_gradient_to_bytes(layer_gradient: LayerGradient) -> bytes:
    """Encode a layer gradient without its number of pairs, which the reply's count holds."""
    return to_bytes(layer_gradient.gradient, layer_gradient.length)


def layer_gradient_from_bytes(data: bytes, pairs: int, layers: int, hidden_size: int) -> LayerGradient:
    """Decode what `layer_gradient_to_bytes` encoded.

    Args:
        data: The encoded layer gradient.
        pairs: Number of pairs, from the reply's count.
        layers: Decoder layers of the base model.
        hidden_size: Hidden size d of the base model.

    Raises:
        InputError: If the length is wrong, or a value is not finite.
    """
    gradient, length = from_bytes(data, (layers, hidden_size), (layers,))
    return LayerGradient(gradient, length, pairs)


def to_bytes(*tensors: torch.Tensor, dtype: str = "<f4") -> bytes:
    """Encode tensors one after another.

    Args:
        *tensors: Tensors of any shape.
        dtype: Encoding of the values, as numpy names it.
    """
    return b"".join(tensor.detach().cpu().numpy().astype(dtype).tobytes() for tensor in tensors)


def from_bytes(data: bytes, *shapes: tuple[int, ...], dtype: str = "<f4") -> list[torch.Tensor]:
    """Decode what `to_bytes` encoded.

    Args:
        data: The encoded tensors.
        *shapes: Their shapes, in order.
        dtype: Encoding of the values, as numpy names it.

    Raises:
        InputError: If the length does not fit the shapes, or a value is not finite.
    """
    sizes = [int(np.prod(shape)) for shape in shapes]
    width = np.dtype(dtype).itemsize
    if len(data) != width * sum(sizes):
        raise InputError(f"{len(data)} bytes of statistics, expected {width * sum(sizes)}")
    values = torch.from_numpy(np.frombuffer(data, dtype).copy())
    if not bool(values.isfinite().all()):
        raise InputError("the statistics have values that are not finite")
    bounds = pairwise(accumulate(sizes, initial=0))
    return [values[start:end].reshape(shape) for (start, end), shape in zip(bounds, shapes, strict=True)]
