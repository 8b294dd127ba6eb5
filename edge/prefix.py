"""The tokens all prompts of a task begin with, run once for every item, user and step that shares them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, DynamicLayer

from protocol.base_model import BaseModel
from protocol.layers import changing, decoder_layers, running

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Of one decoder layer, each (rows, heads, tokens, head size)."""


@dataclass(frozen=True)
class Prefix:
    """What a frozen model makes of a beginning, as far as no shift can touch it."""

    tokens: tuple[int, ...]
    hidden: torch.Tensor
    """(1, tokens, d) output of the entry layer."""
    layers: Mapping[int, KeysValues]
    """By decoder layer, with one row."""

    def __len__(self) -> int:
        return len(self.tokens)


@torch.no_grad()
def run_prefix(base: BaseModel, tokens: Sequence[int], entry: int, layers: range) -> Prefix | None:
    """Run `tokens` through the decoder layers `layers`, which begin at 0 and hold `entry`.

    None where there are no tokens, or the model does not keep all keys: sliding windows, recurrent layers.
    """
    if not tokens:
        return None
    outputs: list[torch.Tensor] = []
    ids = torch.tensor([list(tokens)], device=base.device)
    with running(base.model, layers), changing(base.model, [entry], recorder(outputs)):
        run = base.model(input_ids=ids, use_cache=True, logits_to_keep=1)
    kept = whole_layers(run.past_key_values, layers, len(tokens))
    return Prefix(tuple(tokens), outputs[0], kept) if kept else None


def recorder(outputs: list[torch.Tensor]) -> Any:
    """A change for `changing` that changes nothing and keeps what passes."""

    def change(layer: int, hidden: torch.Tensor) -> torch.Tensor:
        outputs.append(hidden)
        return hidden

    return change


def whole_layers(cache: DynamicCache, layers: range, tokens: int) -> dict[int, KeysValues]:
    """Keys and values of `layers`; empty unless each of them holds all `tokens`."""
    found: list[Any] = cache.layers[layers.start : layers.stop]
    kept = {
        number: (layer.keys, layer.values)
        for number, layer in zip(layers, found, strict=False)
        if getattr(layer, "keys", None) is not None and layer.keys.shape[2] == tokens
    }
    return kept if len(kept) == len(layers) else {}


def repeated(prefix: Prefix | None, rows: int) -> dict[int, KeysValues]:
    """The prefix's keys and values in each of `rows` rows."""
    if prefix is None:
        return {}
    return {
        number: (keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
        for number, (keys, values) in prefix.layers.items()
    }


def starting_with(base: BaseModel, layers: Mapping[int, KeysValues]) -> DynamicCache | None:
    """A cache whose layers begin with `layers`; None for none of them.

    The other layers get places that take no memory: the model asks the first layer for the length.
    """
    if not layers:
        return None
    empty = next(iter(layers.values()))[0]
    place = empty.new_zeros(()).expand(empty.shape)
    cache = DynamicCache()
    cache.layers = [_Begun(*layers.get(n, (place, place))) for n in range(len(decoder_layers(base.model)))]
    return cache


class _Begun(DynamicLayer):
    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values = keys, values
        self.is_initialized = True


def forgets(base: BaseModel, tokens: int) -> bool:
    """Whether the model attends to a window shorter than twice `tokens`, in which padding would count."""
    config = base.model.config
    window = getattr(getattr(config, "text_config", config), "sliding_window", None)
    return window is not None and 2 * tokens > window


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Number of tokens all rows begin with."""
    for index, tokens in enumerate(zip(*rows, strict=False)):
        if len(set(tokens)) > 1:
            return index
    return min((len(row) for row in rows), default=0)
