"""CHAMELEON's edit of a frozen model: MLP outputs gain along one direction and lose along another.

For an MLP output x of an edited layer (Zhang et al., 2025, section 3.2):

    x <- x + <x, p> p,  then  x <- x - <x, n> n,  that is (I - n n')(I + p p') x

with p the personalized and n the neutral direction, both of length one. Neither sign nor length of the
directions given matters; an absent direction (zero) changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from fedperfit.protocol.model.config import text_config
from fedperfit.protocol.model.joint_rows import JointLayer
from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.system.errors import InputError

_MLPS = ("mlp", "feed_forward", "ffn", "DenseReluDense", "fc2")
"""Attribute names under which decoder layers hold their MLP, or the last part of it."""
_LONGEST = 1e30


@dataclass(frozen=True, eq=False)
class Directions:
    """The directions of one person or one group, by decoder layer."""

    layers: tuple[int, ...]
    """Decoder layers whose MLPs are edited, ascending, counted from 0."""
    personalized: torch.Tensor
    """Directions along which outputs gain: (layers, d) fp32, rows of length one or zero."""
    neutral: torch.Tensor
    """Directions that are removed from outputs: (layers, d) fp32, rows of length one or zero."""

    @classmethod
    def of(cls, layers: Sequence[int], personalized: torch.Tensor, neutral: torch.Tensor) -> "Directions":
        """Make directions from rows of any length, which are scaled to one.

        Args:
            layers: Decoder layers, ascending, counted from 0.
            personalized: (layers, d), finite.
            neutral: (layers, d), finite.

        Raises:
            InputError: If layers are not ascending, shapes do not fit, or a value is not finite.
        """
        if not layers or layers[0] < 0 or any(later <= layer for layer, later in pairwise(layers)):
            raise InputError(f"directions for layers {list(layers)}: expected ascending numbers from 0 on")
        if personalized.ndim != 2 or personalized.shape != neutral.shape or len(neutral) != len(layers):
            raise InputError("the shape of the directions does not fit their layers")
        if any(not bool((rows.abs() < _LONGEST).all()) for rows in (personalized, neutral)):
            raise InputError("the directions have values that are not finite")
        return cls(tuple(layers), _unit(personalized), _unit(neutral))

    @property
    def parameters(self) -> int:
        """Number of values stored, 2 d for each layer."""
        return self.personalized.numel() + self.neutral.numel()

    def edit(self, x: torch.Tensor, number: int) -> torch.Tensor:
        """Edit the output of one layer's MLP.

        Args:
            x: (…, d), the MLP's output.
            number: Index of the layer in `layers`.
        """
        p, n = self.personalized[number].to(x), self.neutral[number].to(x)
        x = x + (x @ p)[..., None] * p
        return x - (x @ n)[..., None] * n

    def to(self, device: torch.device) -> "Directions":
        """Return these directions with their tensors on `device`."""
        return Directions(self.layers, self.personalized.to(device), self.neutral.to(device))

    def to_bytes(self) -> bytes:
        """Encode as the bytes of a safetensors file."""
        return save(
            {
                "layers": torch.tensor(self.layers),
                "personalized": self.personalized.cpu().contiguous(),
                "neutral": self.neutral.cpu().contiguous(),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "Directions":
        """Decode what `to_bytes` wrote.

        Raises:
            InputError: If the bytes are truncated or hold anything but directions.
        """
        try:
            tensors = load(data)
        except (SafetensorError, ValueError, KeyError, RuntimeError):
            raise InputError("the directions are truncated, or not a safetensors file") from None
        if set(tensors) != {"layers", "personalized", "neutral"}:
            raise InputError("the directions have missing or unknown tensors")
        layers = tensors["layers"]
        if layers.dtype != torch.int64 or layers.ndim != 1:
            raise InputError("the layers of the directions are not whole numbers")
        if any(tensors[name].dtype != torch.float32 for name in ("personalized", "neutral")):
            raise InputError("the directions are not in fp32")
        return cls.of(layers.tolist(), tensors["personalized"], tensors["neutral"])


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(rows.float(), dim=1)


@contextmanager
def editing(model: nn.Module, directions: Directions) -> Iterator[None]:
    """Edit the MLPs of the directions' layers inside the block, at all positions, while decoding too.

    Args:
        model: A transformers model.
        directions: Directions found on a model of the same size.

    Raises:
        InputError: If the directions do not fit the model.
    """
    handles = [
        mlp.register_forward_hook(_hook(directions, number))
        for number, mlp in enumerate(_edited_mlps(model, directions))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(directions: Directions, number: int) -> Callable[[nn.Module, Any, Any], Any]:
    def on_output(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (directions.edit(output[0], number), *output[1:])
        return directions.edit(output, number)

    return on_output


def _edited_mlps(model: nn.Module, directions: Directions) -> list[nn.Module]:
    layers = decoder_layers(model)
    if directions.layers[-1] >= len(layers):
        raise InputError(f"directions for layer {directions.layers[-1]} of a model with {len(layers)} layers")
    hidden = text_config(model.config).hidden_size
    if directions.neutral.shape[1] != hidden:
        raise InputError(
            f"directions of size {directions.neutral.shape[1]} for a model with hidden size {hidden}"
        )
    return [_mlp(layers[layer]) for layer in directions.layers]


def _mlp(layer: nn.Module) -> nn.Module:
    layer = layer.layer if isinstance(layer, JointLayer) else layer
    parts = getattr(layer, "layer", None)
    for part in (layer, *([parts[-1]] if isinstance(parts, nn.ModuleList) else [])):  # T5 lists the parts
        for name in _MLPS:
            mlp = getattr(part, name, None)
            if isinstance(mlp, nn.Module):
                return mlp
    raise InputError(f"{type(layer).__name__}: no MLP among {', '.join(_MLPS)}")
