"""Runs the tokens that all prompts of a task begin with once, for all items, users and steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, DynamicLayer
from transformers.cache_utils import DynamicSlidingWindowLayer

from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.config import attention_window
from fedperfit.protocol.model.layers import changing, decoder_layers, running

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one decoder layer, each (rows, heads, tokens, head size)."""


@dataclass(frozen=True)
class Prefix:
    """Shared first tokens, run through the frozen model as far as no shift can change them."""

    tokens: tuple[int, ...]
    """Token ids, at least one."""
    hidden: torch.Tensor
    """(1, tokens, d) output of the entry layer."""
    layers: Mapping[int, KeysValues]
    """Keys and values by decoder layer, with one row."""

    def __len__(self) -> int:
        return len(self.tokens)


@torch.no_grad()
def run_prefix(base: BaseModel, tokens: Sequence[int], entry: int, layers: range) -> Prefix | None:
    """Run shared first tokens through the first decoder layers.

    Args:
        base: the frozen model.
        tokens: token ids.
        entry: layer whose output is kept.
        layers: decoder layers to run; begins at 0 and holds `entry`.

    Returns:
        The run; None where there are no tokens, or the model does not keep all keys (sliding windows,
        recurrent layers).
    """
    if not tokens:
        return None
    outputs: list[torch.Tensor] = []
    ids = torch.tensor([list(tokens)], device=base.device)
    with running(base.model, layers), changing(base.model, [entry], recorder(outputs)):
        run = base.model(input_ids=ids, use_cache=True, logits_to_keep=1)
    kept = whole_layers(getattr(run, "past_key_values", None), layers, len(tokens))
    return Prefix(tuple(tokens), outputs[0], kept) if kept else None


def recorder(outputs: list[torch.Tensor]) -> Any:
    """A change for `changing` that leaves hidden states as they are and appends them to `outputs`."""

    def change(layer: int, hidden: torch.Tensor) -> torch.Tensor:
        outputs.append(hidden)
        return hidden

    return change


def whole_layers(cache: DynamicCache | None, layers: range, tokens: int) -> dict[int, KeysValues]:
    """Keys and values of some decoder layers after a run.

    Args:
        cache: filled by the run; None where the model makes none, or one of another kind.
        layers: decoder layers asked for.
        tokens: number of tokens run.

    Returns:
        By layer; empty unless each of `layers` holds the keys of all tokens, and nothing else.
    """
    cached: list[Any] = getattr(cache, "layers", [])[layers.start : layers.stop]
    whole = {
        number: (layer.keys, layer.values)
        for number, layer in zip(layers, cached, strict=False)
        if type(layer) in _PLAIN_LAYERS and layer.keys is not None and layer.keys.shape[2] == tokens
    }
    return whole if len(whole) == len(layers) else {}


PrefixParts = Mapping[int, Sequence[KeysValues]]
"""Keys and values before the tokens to be run: by decoder layer, in parts of all rows or one for all."""


def prefix_parts_of(prefix: Prefix | None) -> PrefixParts:
    """Keys and values of a prefix as the only part; none without a prefix."""
    return {} if prefix is None else {number: [part] for number, part in prefix.layers.items()}


def starting_with(base: BaseModel, prefix_parts: PrefixParts) -> DynamicCache | None:
    """A key-value cache that begins with given keys and values.

    Layers without any get placeholders that take no memory: the model asks the first layer for the length.

    Args:
        base: the model the cache is for.
        prefix_parts: keys and values by decoder layer, equally long in each.

    Returns:
        The cache; None where no layer has keys and values.
    """
    if not prefix_parts:
        return None
    parts = next(iter(prefix_parts.values()))
    placeholder = [(keys.new_zeros(()).expand(keys.shape),) * 2 for keys, _ in parts]
    depth = len(decoder_layers(base.model))
    cache = DynamicCache()
    cache.layers = [_StartedLayer(prefix_parts.get(n, placeholder)) for n in range(depth)]
    return cache


class _StartedLayer(DynamicLayer):
    """Layer of a cache that joins its parts only with the first run's keys, so that each is copied once."""

    def __init__(self, parts: Sequence[KeysValues]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parts = list(parts)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> KeysValues:
        """Append (rows, heads, tokens, head size) each; returns all keys and values so far."""
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
        """Number of tokens whose keys the layer holds."""
        if self.parts:
            return sum(keys.shape[2] for keys, _ in self.parts)
        return int(super().get_seq_length())


def contexts_side_by_side(
    contexts: Sequence[torch.Tensor | None], layers: range
) -> tuple[dict[int, KeysValues], torch.Tensor]:
    """Stack the keys and values of rows of different lengths, padded on the left.

    Args:
        contexts: for each row (2 * layers, heads, tokens, head size), or None for no tokens.
        layers: decoder layers the tensors belong to, keys and values of each in turn.

    Returns:
        Keys and values by layer, none where no row has a context; and (rows, columns) bool, false at padding.
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
    """Whether the model's sliding window or chunk is so short that padding would push tokens out of it.

    Args:
        base: the model.
        tokens: length of the longest row; padded, a row takes at most twice as many columns.
    """
    window = attention_window(base.model.config)
    return window is not None and 2 * tokens > window


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Number of first tokens that all rows have in common."""
    for index, tokens in enumerate(zip(*rows, strict=False)):
        if len(set(tokens)) > 1:
            return index
    return min((len(row) for row in rows), default=0)


_PLAIN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer, _StartedLayer)
"""Layers of a cache that keep keys and values alone; others also keep recurrent states or indices."""
