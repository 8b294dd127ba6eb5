"""CHAMELEON's edit of a frozen model: what MLP outputs gain along one direction and lose along another.

For an MLP output x of an edited layer (Zhang et al., 2025, section 3.2):

    x <- x + <x, p> p,  then  x <- x - <x, n> n,  that is (I - n n')(I + p p') x

with p the personalized and n the neutral direction, of length one. Neither sign nor length of what was
found matters; a direction that is absent (zero) changes nothing.
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
from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.system.errors import InputError

_MLPS = ("mlp", "feed_forward", "ffn")
"""Names of a decoder layer's MLP."""
_LONGEST = 1e30


@dataclass(frozen=True, eq=False)
class Directions:
    """The directions of one person or one group, by decoder layer."""

    layers: tuple[int, ...]
    """Rising."""
    personalized: torch.Tensor
    """(layers, d) fp32, rows of length one or zero."""
    neutral: torch.Tensor
    """The same."""

    @classmethod
    def of(cls, layers: Sequence[int], personalized: torch.Tensor, neutral: torch.Tensor) -> "Directions":
        """Scale the rows to length one; raises InputError for shapes that do not fit or values not finite."""
        if not layers or layers[0] < 0 or any(later <= layer for layer, later in pairwise(layers)):
            raise InputError(f"directions for layers {list(layers)}: expected rising numbers from 0 on")
        if personalized.ndim != 2 or personalized.shape != neutral.shape or len(neutral) != len(layers):
            raise InputError("directions of a shape that does not fit their layers")
        if any(not bool((rows.abs() < _LONGEST).all()) for rows in (personalized, neutral)):
            raise InputError("directions with values that are not finite")
        return cls(tuple(layers), _unit(personalized), _unit(neutral))

    @property
    def parameters(self) -> int:
        """Numbers kept."""
        return self.personalized.numel() + self.neutral.numel()

    def edit(self, x: torch.Tensor, number: int) -> torch.Tensor:
        """x: (…, d), the MLP output of the layer that comes at `number` in `layers`."""
        p, n = self.personalized[number].to(x), self.neutral[number].to(x)
        x = x + (x @ p)[..., None] * p
        return x - (x @ n)[..., None] * n

    def to(self, device: torch.device) -> "Directions":
        """The same on a device."""
        return Directions(self.layers, self.personalized.to(device), self.neutral.to(device))

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        return save(
            {
                "layers": torch.tensor(self.layers),
                "personalized": self.personalized.cpu().contiguous(),
                "neutral": self.neutral.cpu().contiguous(),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "Directions":
        """The inverse; raises InputError for anything malformed."""
        try:
            found = load(data)
        except (SafetensorError, ValueError, KeyError, RuntimeError):
            raise InputError("directions are truncated or no safetensors") from None
        if set(found) != {"layers", "personalized", "neutral"}:
            raise InputError("directions with missing or unknown tensors")
        layers = found["layers"]
        if layers.dtype != torch.int64 or layers.ndim != 1:
            raise InputError("directions whose layers are not whole numbers")
        if any(found[name].dtype != torch.float32 for name in ("personalized", "neutral")):
            raise InputError("directions that are not fp32")
        return cls.of(layers.tolist(), found["personalized"], found["neutral"])


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(rows.float(), dim=1)


@contextmanager
def editing(model: nn.Module, directions: Directions) -> Iterator[None]:
    """Inside the block the MLPs of the directions' layers are edited, at all positions and while decoding.

    Raises InputError when the directions are for another model.
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
    for name in _MLPS:
        found = getattr(layer, name, None)
        if isinstance(found, nn.Module):
            return found
    raise InputError(f"{type(layer).__name__}: no MLP among {', '.join(_MLPS)}")
