"""The tokens all prompts of a task begin with, run once for every item, user and step that shares them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, DynamicLayer

from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.config import text_config
from fedperfit.protocol.model.layers import changing, decoder_layers, running

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


PrefixParts = Mapping[int, Sequence[KeysValues]]
"""By decoder layer the parts that stand before the tokens to be run, each with all rows or one for all."""


def prefix_parts_of(prefix: Prefix | None) -> PrefixParts:
    """The prefix as the only part."""
    return {} if prefix is None else {number: [part] for number, part in prefix.layers.items()}


def starting_with(base: BaseModel, prefix_parts: PrefixParts) -> DynamicCache | None:
    """A cache whose layers begin with `beginning`; None for none of them.

    The other layers get places that take no memory: the model asks the first layer for the length.
    """
    if not prefix_parts:
        return None
    parts = next(iter(prefix_parts.values()))
    place = [(keys.new_zeros(()).expand(keys.shape),) * 2 for keys, _ in parts]
    cache = DynamicCache()
    cache.layers = [_StartedLayer(prefix_parts.get(n, place)) for n in range(len(decoder_layers(base.model)))]
    return cache


class _StartedLayer(DynamicLayer):
    """Joins its parts only when the layer's own keys and values come, so that all are copied once."""

    def __init__(self, parts: Sequence[KeysValues]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parts = list(parts)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> KeysValues:
        """All keys and values so far."""
        if self.parts:
            rows = len(key_states)
            keys, values = zip(*self.parts, strict=True)
            self.parts = []
            self.is_initialized = True
            self.keys = torch.cat([*(k.expand(rows, -1, -1, -1) for k in keys), key_states], dim=2)
            self.values = torch.cat([*(v.expand(rows, -1, -1, -1) for v in values), value_states], dim=2)
            return self.keys, self.values
        joined: KeysValues = super().update(key_states, value_states, *args, **kwargs)
        return joined

    def get_seq_length(self) -> int:
        """Tokens so far."""
        if self.parts:
            return sum(keys.shape[2] for keys, _ in self.parts)
        return int(super().get_seq_length())


def contexts_side_by_side(
    contexts: Sequence[torch.Tensor | None], layers: range
) -> tuple[dict[int, KeysValues], torch.Tensor]:
    """Rows' own keys and values as a part of a beginning, padded on the left; and which places are filled.

    contexts: (2 * layers, heads, tokens, head size) of each row, or None. The second is (rows, places) bool,
    without places when no row has a context.
    """
    lengths = torch.tensor([0 if context is None else context.shape[2] for context in contexts])
    widest = int(lengths.max())
    filled = torch.arange(widest) >= widest - lengths[:, None]
    known = next((context for context in contexts if context is not None), None)
    if known is None:
        return {}, filled
    tensors, heads, _, size = known.shape
    joined = known.new_empty(tensors, len(contexts), heads, widest, size)
    for number, (context, length) in enumerate(zip(contexts, lengths.tolist(), strict=True)):
        joined[:, number, :, : widest - length] = 0
        if context is not None:
            joined[:, number, :, widest - length :] = context
    return {n: (joined[2 * i], joined[2 * i + 1]) for i, n in enumerate(layers)}, filled


def forgets(base: BaseModel, tokens: int) -> bool:
    """Whether the model attends to a window shorter than twice `tokens`, in which padding would count."""
    window = getattr(text_config(base.model.config), "sliding_window", None)
    return window is not None and 2 * tokens > window


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Number of tokens all rows begin with."""
    for index, tokens in enumerate(zip(*rows, strict=False)):
        if len(set(tokens)) > 1:
            return index
    return min((len(row) for row in rows), default=0)
