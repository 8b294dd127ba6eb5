"""Answers of the shifted model: greedy text, and the likeliest of a fixed set of labels.

Questions of many users are answered side by side, each under its own user's shifts.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise

import torch
from transformers import DynamicCache

from fedperfit.edge.engine.building import Item
from fedperfit.edge.engine.examples import Example, pad_left, position_arguments
from fedperfit.edge.engine.items import EMBEDDINGS, ItemCache, context_length
from fedperfit.edge.engine.prefix import (
    Prefix,
    common_prefix,
    contexts_side_by_side,
    forgets,
    run_prefix,
    starting_with,
    whole_layers,
)
from fedperfit.edge.engine.slab import BatchPositions, Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import changing, decoder_layers
from fedperfit.protocol.tasks import AnswerKind, PromptForm, Task

MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Question:
    """A prompt, and whose it is: an index into the stack's own shifts."""

    prompt: tuple[int, ...]
    user: int = 0


def answer(
    base: BaseModel,
    task: Task,
    form: PromptForm,
    stack: Stack,
    questions: Sequence[Question],
    *,
    batch_size: int,
    items: ItemCache | None = None,
) -> list[str]:
    """The likeliest of a task's labels for each question, or greedy text. items: as for `generate`."""
    if task.kind is AnswerKind.TEXT:
        return generate(base, stack, questions, batch_size=batch_size, items=items)
    labels = label_tokens(base, task, form)
    chosen = likeliest(base, stack, questions, labels, batch_size=batch_size, items=items)
    return [task.labels[index] for index in chosen]


def label_tokens(base: BaseModel, task: Task, form: PromptForm) -> list[tuple[int, ...]]:
    """Each label's target as token ids, end token included."""
    tokens = base.tokenizer([task.target(label, form) for label in task.labels], add_special_tokens=False)
    return [(*label, base.tokenizer.eos_token_id) for label in tokens["input_ids"]]


@torch.inference_mode()
def generate(
    base: BaseModel,
    stack: Stack,
    questions: Sequence[Question],
    *,
    batch_size: int,
    items: ItemCache | None = None,
) -> list[str]:
    """Greedy continuations up to the end token, in the order of `questions`.

    The shifts act in the prefill only, so a decoded token costs what it costs without them.
    items: keeps what no shift can touch of the questions, for when they are asked again under another.
    """
    answers = [""] * len(questions)
    for batch in batches(base, stack, questions, batch_size, items):
        width = batch.ids.shape[1]
        with batch.shifted(base, stack, batch.mask[:, batch.known :]):
            rows = base.model.generate(
                input_ids=batch.ids,
                attention_mask=batch.mask.long(),
                past_key_values=batch.cache,
                max_new_tokens=min(MAX_NEW_TOKENS, base.context - width),
                do_sample=False,
                num_beams=1,
                pad_token_id=base.tokenizer.eos_token_id,
            )
        texts = base.tokenizer.batch_decode(rows[:, width:], skip_special_tokens=True)
        for index, text in zip(batch.indices, texts, strict=True):
            answers[index] = text.strip()
    return answers


@torch.inference_mode()
def likeliest(
    base: BaseModel,
    stack: Stack,
    questions: Sequence[Question],
    labels: Sequence[tuple[int, ...]],
    *,
    batch_size: int,
    items: ItemCache | None = None,
) -> list[int]:
    """For each question the index of the label with the highest log-likelihood, end token included.

    labels: token ids of each label's target. The prompt is run once; then all labels stand side by side
    in one row, each seeing the prompt and itself, so that no cache is copied. items: as for `generate`.
    """
    best = [0] * len(questions)
    tree = _LabelTree.of(labels, base.device)
    depth = range(len(decoder_layers(base.model)))
    for batch in batches(base, stack, questions, batch_size, items):
        mask, rest = batch.mask, batch.ids[:, batch.known :]
        with batch.shifted(base, stack, batch.mask[:, batch.known :]):
            prefill = base.model(
                input_ids=rest,
                attention_mask=mask.long(),
                **position_arguments(base, mask, last=rest.shape[1]),
                past_key_values=batch.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        first = prefill.logits[:, -1].float().log_softmax(-1)
        scores = first[:, tree.starts]
        if forgets(base, mask.shape[1] + len(tree.inputs)) or not whole_layers(
            prefill.past_key_values, depth, mask.shape[1]
        ):
            scores = _recomputed_scores(base, stack, batch, labels)
        elif tree.inputs.numel():
            position = {}
            if position_arguments(base, mask):
                position = {"position_ids": mask.sum(1, keepdim=True) + tree.depth}
            logits = base.model(
                input_ids=tree.inputs.expand(len(mask), -1),
                attention_mask=tree.attention(mask, prefill.logits.dtype),
                **position,
                past_key_values=prefill.past_key_values,
                use_cache=True,
            ).logits
            later = logits.float().log_softmax(-1).gather(2, tree.outputs.expand(len(mask), -1)[:, :, None])
            scores = scores.index_add(1, tree.label, later[:, :, 0])
        for index, choice in zip(batch.indices, scores.argmax(-1).tolist(), strict=True):
            best[index] = choice
    return best


@dataclass(frozen=True)
class _LabelTree:
    """The labels' tokens in one row: S inputs, each predicting the next token of its own label."""

    starts: torch.Tensor
    """(labels,) first tokens, predicted by the prompt."""
    inputs: torch.Tensor
    """(S,)"""
    outputs: torch.Tensor
    """(S,)"""
    label: torch.Tensor
    """(S,) label each input belongs to."""
    depth: torch.Tensor
    """(S,) its place in the label, from 0."""

    @classmethod
    def of(cls, labels: Sequence[tuple[int, ...]], device: torch.device) -> "_LabelTree":
        rows = [
            (token, following, number, depth)
            for number, label in enumerate(labels)
            for depth, (token, following) in enumerate(pairwise(label))
        ]
        columns = torch.tensor(rows, dtype=torch.long, device=device).reshape(-1, 4).unbind(1)
        return cls(torch.tensor([label[0] for label in labels], device=device), *columns)

    def attention(self, prompt: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Additive mask (batch, 1, S, prompt + S): the prompt's tokens, and the label's own so far."""
        own = (self.label[:, None] == self.label) & (self.depth[:, None] >= self.depth)
        rows = len(self.inputs)
        seen = torch.cat(
            [prompt[:, None, None].expand(-1, 1, rows, -1), own.expand(len(prompt), 1, -1, -1)], dim=-1
        )
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
            ~seen, torch.finfo(dtype).min
        )


def _recomputed_scores(
    base: BaseModel, stack: Stack, batch: "_Batch", labels: Sequence[tuple[int, ...]]
) -> torch.Tensor:
    """(batch, labels) log-likelihoods, each label with its whole prompt: for models that forget keys."""
    prompt = batch.ids.shape[1]
    scores = []
    for label in labels:
        tokens = torch.tensor(label, device=base.device).expand(len(batch.ids), -1)
        mask = torch.cat([batch.mask, torch.ones_like(tokens, dtype=torch.bool)], dim=1)
        inside = torch.cat([batch.mask, torch.zeros_like(tokens, dtype=torch.bool)], dim=1)
        with batch.shifted(base, stack, inside):
            logits = base.model(
                input_ids=torch.cat([batch.ids, tokens], dim=1),
                attention_mask=mask.long(),
                **position_arguments(base, mask),
                use_cache=False,
            ).logits
        logs = logits[:, prompt - 1 : -1].float().log_softmax(-1)
        scores.append(logs.gather(2, tokens[:, :, None]).sum(dim=(1, 2)))
    return torch.stack(scores, dim=1)


@dataclass(frozen=True)
class _Batch:
    """Prompts of similar length: what is known of them already, and the rest padded on the left."""

    indices: list[int]
    owners: list[int]
    """The user of each row."""
    ids: torch.Tensor
    """(batch, tokens)"""
    mask: torch.Tensor
    """(batch, tokens) bool, false at padding."""
    known: int
    """Columns whose keys and values are known."""
    cache: DynamicCache | None
    """Keys and values of the known columns."""

    def shifted(self, base: BaseModel, stack: Stack, prompt: torch.Tensor) -> AbstractContextManager[None]:
        """The stack at the prompts' positions in the first pass through each layer.

        prompt: (batch, tokens) bool, true at the prompts' tokens among those of that pass.
        """
        users = sorted(set(self.owners))
        chosen = stack.some(users)
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


def batches(
    base: BaseModel,
    stack: Stack,
    questions: Sequence[Question],
    batch_size: int,
    items: ItemCache | None,
) -> Iterator[_Batch]:
    prompts = [question.prompt for question in questions]
    prefix, known = _known(base, stack, prompts, items)
    shared = prefix.tokens if prefix else ()
    layers = range(len(decoder_layers(base.model)))
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        rows = [prompts[index] for index in indices]
        halves = [(row[len(shared) : known[row].start], row[known[row].start :]) for row in rows]
        contexts, filled = contexts_side_by_side([known[row].context for row in rows], layers)
        parts = [*([prefix.layers] if prefix else []), *([contexts] if contexts else [])]
        before, _ = pad_left([half for half, _ in halves], base.device)
        rest, own = pad_left([half for _, half in halves], base.device)
        first = torch.tensor(shared, dtype=torch.long, device=base.device).expand(len(rows), -1)
        started = torch.ones_like(first, dtype=torch.bool)
        yield _Batch(
            indices=indices,
            owners=[questions[index].user for index in indices],
            ids=torch.cat([first, before, rest], dim=1),
            mask=torch.cat([started, filled.to(base.device), own], dim=1),
            known=len(shared) + filled.shape[1],
            cache=starting_with(base, {n: [part[n] for part in parts] for n in layers if parts}),
        )


def _known(
    base: BaseModel, stack: Stack, prompts: Sequence[tuple[int, ...]], items: ItemCache | None
) -> tuple[Prefix | None, dict[tuple[int, ...], Item]]:
    """What all prompts begin with, and what is known of each: its context where the cache keeps it."""
    positions = stack.parts[0].shape.positions if stack.parts else None
    if positions is not None and positions.first:
        return None, {prompt: Item(0, None, None) for prompt in prompts}
    if items is not None and positions is not None:
        examples = [Example(prompt, ()) for prompt in prompts]
        prepared = items.prepare([examples], EMBEDDINGS, positions)
        return prepared.prefix, {example.prompt: item for example, item in prepared.items.items()}
    last = 1 if positions is None else positions.last
    contexts = [prompt[: context_length(prompt, last)] for prompt in prompts]
    shared = 0 if forgets(base, max(map(len, prompts))) else common_prefix(contexts)
    prefix = run_prefix(base, prompts[0][:shared], 0, range(len(decoder_layers(base.model))))
    return prefix, {prompt: Item(len(prefix) if prefix else 0, None, None) for prompt in prompts}
