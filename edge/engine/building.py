"""Runs training items through the frozen model once, for the cache in `items.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedperfit.edge.engine.examples import Example, position_arguments
from fedperfit.edge.engine.prefix import (
    Prefix,
    PrefixParts,
    prefix_parts_of,
    recorder,
    starting_with,
    whole_layers,
)
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import changing, decoder_layers, running


@dataclass(frozen=True)
class CachedItem:
    """Part of an example's computation that no shift can change."""

    start: int
    """Number of the first token of the row that a step runs."""
    hidden: torch.Tensor | None
    """(tokens run, d) output of the entry layer, before any shift; None where steps begin with the tokens."""
    context: torch.Tensor | None
    """(2 * layers above, heads, tokens, head size) keys and values between the prefix and `start`."""

    @property
    def bytes(self) -> int:
        """Bytes of memory that the tensors take."""
        return sum(tensor.nbytes for tensor in (self.hidden, self.context) if tensor is not None)


@torch.no_grad()
def build_items(
    base: BaseModel, examples: Sequence[Example], starts: Sequence[int], entry: int, prefix: Prefix | None
) -> list[CachedItem]:
    """Run examples once and keep what training steps need of them.

    The context between prefix and start goes through all layers, the rest as far as the entry layer.

    Args:
        base: the frozen model.
        examples: rows that all begin with the tokens of `prefix`.
        starts: for each example the number of the first token that a step runs.
        entry: first shifted decoder layer; negative to keep no hidden states.
        prefix: run of the shared tokens, if there are any.

    Returns:
        One item per example, in their order.
    """
    shared = len(prefix) if prefix else 0
    prefix_parts = prefix_parts_of(prefix)
    longest = max(starts) - shared
    if longest:
        contexts = [example.prompt[shared:start] for example, start in zip(examples, starts, strict=True)]
        prefix_parts = _run_contexts(base, _padded(contexts), prefix_parts, shared + longest)
    states: list[torch.Tensor | None] = [None] * len(examples)
    if entry >= 0:
        states = _run_rest(base, examples, starts, shared + longest, entry, prefix_parts)
    depth = len(decoder_layers(base.model))
    above = [tensor for n in range(entry + 1, depth) for part in prefix_parts.get(n, ()) for tensor in part]
    items = []
    for row, (start, hidden) in enumerate(zip(starts, states, strict=True)):
        context = None
        if longest and above:
            context = torch.stack([tensor[row, :, shared:start] for tensor in above])
        items.append(CachedItem(start, hidden, context))
    return items


def _run_contexts(base: BaseModel, ids: torch.Tensor, prefix_parts: PrefixParts, tokens: int) -> PrefixParts:
    """Keys and values of prefix and contexts in every layer; ids: (rows, context tokens)."""
    run = base.model(
        input_ids=ids.to(base.device),
        past_key_values=starting_with(base, prefix_parts),
        use_cache=True,
        logits_to_keep=1,
    )
    layers = whole_layers(run.past_key_values, range(len(decoder_layers(base.model))), tokens)
    return {number: [part] for number, part in layers.items()}


def _run_rest(
    base: BaseModel,
    examples: Sequence[Example],
    starts: Sequence[int],
    known: int,
    entry: int,
    prefix_parts: PrefixParts,
) -> list[torch.Tensor | None]:
    """Output of the entry layer for each row from its start on, (tokens, d).

    known: columns of keys and values before the rows, filled up to each row's start.
    """
    rows = [(*e.prompt[start:], *e.target[:-1]) for e, start in zip(examples, starts, strict=True)]
    lengths = torch.tensor([len(row) for row in rows])
    before = torch.arange(known) < torch.tensor(starts)[:, None]
    own = torch.arange(int(lengths.max())) < lengths[:, None]
    mask = torch.cat([before, own], dim=1).to(base.device)
    below = {number: parts for number, parts in prefix_parts.items() if number <= entry}
    outputs: list[torch.Tensor] = []
    with running(base.model, range(entry + 1)), changing(base.model, [entry], recorder(outputs)):
        base.model(
            input_ids=_padded(rows).to(base.device),
            attention_mask=mask.long(),
            **position_arguments(base, mask, last=own.shape[1]),
            past_key_values=starting_with(base, below),
            use_cache=bool(below),
            logits_to_keep=1,
        )
    return [hidden[:length].clone() for hidden, length in zip(outputs[0], lengths.tolist(), strict=True)]


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Ids (rows, longest), padded on the right, where causality makes padding harmless."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=torch.long)
