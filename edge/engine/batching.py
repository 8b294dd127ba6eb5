"""Batches of prompts to be answered, with the keys and values that are known of them already."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from fedperfit.edge.engine.building import CachedItem
from fedperfit.edge.engine.examples import Example, pad_left
from fedperfit.edge.engine.items import EMBEDDINGS, ItemCache, context_length
from fedperfit.edge.engine.paths.path import Path
from fedperfit.edge.engine.paths.plain import shifted_whole
from fedperfit.edge.engine.prefix import (
    Prefix,
    common_prefix,
    contexts_side_by_side,
    forgets,
    run_prefix,
    starting_with,
)
from fedperfit.edge.engine.slab import BatchPositions, Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import changing, decoder_layers

_TOKENS = 1 << 16
"""Tokens of prompts that are answered side by side, unless it is one prompt."""


@dataclass(frozen=True)
class Question:
    """A prompt of one user."""

    prompt: tuple[int, ...]
    """Token ids, start token included where the model has one."""
    user: int = 0
    """Place of the user among the stack's own shifts."""


@dataclass(frozen=True)
class QuestionBatch:
    """Prompts of similar length, padded on the left."""

    indices: list[int]
    """Place of each row among the questions."""
    owners: list[int]
    """User of each row."""
    ids: torch.Tensor
    """(batch, tokens) token ids, 0 at padding."""
    mask: torch.Tensor
    """(batch, tokens) bool, false at padding."""
    known: int
    """Number of first columns whose keys and values are known."""
    cache: DynamicCache | None
    """Keys and values of the known columns; None where there are none."""
    path: Path
    """Way in which the batch runs; any but the fast one has one row and knows nothing of it."""

    @property
    def plain(self) -> bool:
        """Whether the row is run whole in every pass."""
        return self.path is Path.BARE

    @property
    def inputs(self) -> dict[str, Any]:
        """Arguments of the model's `generate` that say what is continued."""
        return {
            "input_ids": self.ids,
            "attention_mask": self.mask.long(),
            "past_key_values": self.cache,
        }

    def shifted(self, base: BaseModel, stack: Stack, prompt: torch.Tensor) -> AbstractContextManager[None]:
        """Inside the block the shifts act at the prompts' positions in the first pass through each layer.

        A plain batch runs the prompt anew in every pass, and so the shifts act in every pass.

        Args:
            base: the frozen model.
            stack: shifts of all users.
            prompt: (batch, tokens run) bool, true at the tokens of the prompts in the first pass.
        """
        users = sorted(set(self.owners))
        chosen = stack.some(users)
        if self.plain:
            return shifted_whole(base, chosen, prompt.shape[1])
        done: set[int] = set()
        at = None
        if chosen.layers:
            mask = chosen.parts[0].shape.positions.mask(prompt.cpu())
            at = BatchPositions.of(mask, [users.index(owner) for owner in self.owners], base.device)

        def change(layer: int, hidden: torch.Tensor) -> torch.Tensor:
            if layer in done or at is None:
                return hidden
            done.add(layer)
            return at.change(chosen, layer, hidden)

        return changing(base.model, chosen.layers, change)


def question_batches(
    base: BaseModel,
    stack: Stack,
    questions: Sequence[Question],
    batch_size: int,
    items: ItemCache | None,
    path: Path,
) -> Iterator[QuestionBatch]:
    """Batch questions by length; what the prompts have in common is run once on the fast path.

    Args:
        base: the frozen model.
        stack: shifts the questions will be answered under.
        questions: of any users, in any order.
        batch_size: most questions per batch.
        items: keeps keys and values of prompts for when they are asked again; None to keep none.
        path: way in which they are run; any but the fast one makes batches of one question.
    """
    prompts = [question.prompt for question in questions]
    if path is Path.FAST:
        prefix, known = _known(base, stack, prompts, items)
    else:
        prefix, known, batch_size = None, dict.fromkeys(prompts, CachedItem(0, None, None)), 1
    shared = prefix.tokens if prefix else ()
    layers = range(len(decoder_layers(base.model)))
    for indices in _alike([len(prompt) for prompt in prompts], batch_size):
        rows = [prompts[index] for index in indices]
        halves = [(row[len(shared) : known[row].start], row[known[row].start :]) for row in rows]
        contexts, filled = contexts_side_by_side([known[row].context for row in rows], layers)
        parts = [*([prefix.layers] if prefix else []), *([contexts] if contexts else [])]
        before, _ = pad_left([half for half, _ in halves], base.device)
        rest, own = pad_left([half for _, half in halves], base.device)
        first = torch.tensor(shared, dtype=torch.long, device=base.device).expand(len(rows), -1)
        started = torch.ones_like(first, dtype=torch.bool)
        yield QuestionBatch(
            indices=indices,
            owners=[questions[index].user for index in indices],
            ids=torch.cat([first, before, rest], dim=1),
            mask=torch.cat([started, filled.to(base.device), own], dim=1),
            known=len(shared) + filled.shape[1],
            cache=starting_with(base, {n: [part[n] for part in parts] for n in layers if parts}),
            path=path,
        )


def _alike(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield places of prompts of similar length, the shortest first: few beside a long one."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == most or (len(batch) + 1) * lengths[place] > _TOKENS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _known(
    base: BaseModel, stack: Stack, prompts: Sequence[tuple[int, ...]], items: ItemCache | None
) -> tuple[Prefix | None, dict[tuple[int, ...], CachedItem]]:
    """Run of the tokens that all prompts begin with, and by prompt its context where the cache keeps it."""
    positions = stack.parts[0].shape.positions if stack.parts else None
    if positions is not None and positions.first:
        return None, {prompt: CachedItem(0, None, None) for prompt in prompts}
    if items is not None and positions is not None:
        examples = [Example(prompt, ()) for prompt in prompts]
        prepared = items.prepare([examples], EMBEDDINGS, positions)
        return prepared.prefix, {example.prompt: item for example, item in prepared.items.items()}
    last = 1 if positions is None else positions.last
    contexts = [prompt[: context_length(prompt, last)] for prompt in prompts]
    shared = 0 if forgets(base, max(map(len, prompts))) else common_prefix(contexts)
    prefix = run_prefix(base, prompts[0][:shared], 0, range(len(decoder_layers(base.model))))
    return prefix, {prompt: CachedItem(len(prefix) if prefix else 0, None, None) for prompt in prompts}
