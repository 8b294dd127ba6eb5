"""Keys and values of the prompt positions no shift can touch, computed once and reused.

With positions `lM` everything before the last M prompt tokens is causally untouched in every layer
(reference, section 2b), so its keys and values are constants of the base model: a training step runs
only the last M tokens and the target. The tokens all prompts begin with are run once for all of them.
Exact up to the rounding of differently shaped matrix products; `tests/edge/test_contexts.py` compares
losses, gradients and fitted shifts with the path that recomputes everything.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from transformers import DynamicCache

from protocol.base_model import BaseModel
from protocol.positions import Positions

logger = logging.getLogger("fedperfit.edge")

BUDGET_BYTES = 2 << 30
"""Most memory the contexts of one fit may take; above it everything is recomputed in each step."""
_BUILD_TOKENS = 8192
"""Tokens run at once while building."""

Layer = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one decoder layer, each (rows, heads, tokens, head size)."""


@dataclass(frozen=True)
class Contexts:
    """Contexts of N prompts: a shared beginning, and the rest of each padded on the left."""

    shared: list[Layer]
    """(1, heads, shared tokens, head size)"""
    rest: list[Layer]
    """(N, heads, widest rest, head size)"""
    lengths: torch.Tensor
    """(N,) tokens of each rest."""

    @property
    def shared_length(self) -> int:
        """Tokens all contexts begin with."""
        return self.shared[0][0].shape[2]

    def gather(self, rows: Sequence[int]) -> tuple[DynamicCache, torch.Tensor]:
        """A cache for the prompts `rows`, and which of its places are filled: (rows, places) bool."""
        lengths = self.lengths[list(rows)]
        width = int(lengths.max())
        index = torch.tensor(rows, device=self.rest[0][0].device)
        layers = []
        for shared, rest in zip(self.shared, self.rest, strict=True):
            layers.append(tuple(_join(s, r, index, width) for s, r in zip(shared, rest, strict=True)))
        filled = torch.arange(width) >= width - lengths[:, None]
        shared_mask = torch.ones(len(rows), self.shared_length, dtype=torch.bool)
        return DynamicCache(layers), torch.cat([shared_mask, filled], dim=1).to(index.device)


def _join(shared: torch.Tensor, rest: torch.Tensor, index: torch.Tensor, width: int) -> torch.Tensor:
    chosen = rest.index_select(0, index)[:, :, rest.shape[2] - width :]
    return torch.cat([shared.expand(len(index), -1, -1, -1), chosen], dim=2)


def context_length(prompt: Sequence[int], positions: Positions) -> int:
    """Tokens of `prompt` that shifts at `positions` leave untouched in every layer."""
    return 0 if positions.first else max(0, len(prompt) - positions.last)


@torch.no_grad()
def build_contexts(
    base: BaseModel, prompts: Sequence[tuple[int, ...]], positions: Positions
) -> Contexts | None:
    """The contexts of `prompts`; None when there are none, or when they would exceed the budget."""
    contexts = [prompt[: context_length(prompt, positions)] for prompt in prompts]
    shared = common_prefix(contexts)
    if shared == 0:
        return None
    shared_layers = run_shared(base, contexts[0][:shared])
    if not shared_layers:
        return None
    lengths = torch.tensor([len(context) - shared for context in contexts])
    widest = int(lengths.max())
    per_token = sum(k.numel() + v.numel() for k, v in shared_layers) * shared_layers[0][0].itemsize // shared
    if per_token * widest * len(contexts) > BUDGET_BYTES:
        logger.info("contexts exceed %.1f GiB: recomputing them in every step", BUDGET_BYTES / 2**30)
        return None

    def empty(x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(len(contexts), x.shape[1], widest, x.shape[3])

    rest = [(empty(keys), empty(values)) for keys, values in shared_layers]
    order = sorted(range(len(contexts)), key=lambda row: len(contexts[row]))
    chunk = max(1, _BUILD_TOKENS // max(1, widest))
    bounds = [*range(0, len(order) if widest else 0, chunk), len(order)]
    for start, end in pairwise(bounds):
        rows = order[start:end]
        cache = repeat(shared_layers, len(rows))
        longest = int(lengths[rows].max())
        if longest == 0:
            continue
        ids = _ids(base, [contexts[row][shared:] for row in rows])
        base.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        layers = whole_layers(cache, shared + longest)
        if not layers:
            return None
        for filled, layer in zip(rest, layers, strict=True):
            for place, row in enumerate(rows):
                length = int(lengths[row])
                for target, source in zip(filled, layer, strict=True):
                    target[row, :, widest - length :] = source[place, :, shared : shared + length]
    return Contexts(shared_layers, rest, lengths)


def run_shared(base: BaseModel, tokens: Sequence[int]) -> list[Layer]:
    """Keys and values (1, heads, tokens, head size) of a beginning that several prompts share.

    Empty where the model does not keep them all: sliding windows, recurrent layers.
    """
    run = base.model(input_ids=_ids(base, [tokens]), use_cache=True, logits_to_keep=1)
    return whole_layers(run.past_key_values, len(tokens))


def repeat(layers: Sequence[Layer], rows: int) -> DynamicCache:
    """A cache that starts with `layers` in each of `rows` rows."""
    return DynamicCache([tuple(x.expand(rows, -1, -1, -1) for x in layer) for layer in layers])


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Number of tokens all rows begin with."""
    for index, tokens in enumerate(zip(*rows, strict=False)):
        if len(set(tokens)) > 1:
            return index
    return min((len(row) for row in rows), default=0)


def _ids(base: BaseModel, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """(rows, longest), padded on the right, where causality makes padding harmless."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=base.device)


def whole_layers(cache: DynamicCache, tokens: int) -> list[Layer]:
    """The cache's keys and values; empty unless every layer holds those of all `tokens`."""
    found: list[Any] = list(cache.layers)
    whole = all(getattr(layer, "keys", None) is not None and layer.keys.shape[2] == tokens for layer in found)
    return [(layer.keys, layer.values) for layer in found] if whole else []
