"""Answers of the shifted model: greedy text, and the likeliest of a fixed set of labels."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise

import torch
from transformers import DynamicCache

from edge.contexts import common_prefix, context_length, repeat, run_shared, whole_layers
from edge.examples import pad_left, places
from protocol.base_model import BaseModel
from protocol.injection import injected
from protocol.shift import Shift

MAX_NEW_TOKENS = 64


@torch.inference_mode()
def generate(
    base: BaseModel,
    shifts: Sequence[Shift],
    prompts: Sequence[tuple[int, ...]],
    *,
    batch_size: int,
    additive: bool = False,
) -> list[str]:
    """Greedy continuations up to the end token, in the order of `prompts`.

    The shifts act in the prefill only, so a decoded token costs what it costs without them.
    """
    answers = [""] * len(prompts)
    for batch in _batches(base, shifts, prompts, batch_size):
        width = batch.ids.shape[1]
        with _shifted(base, shifts, batch, additive):
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
    shifts: Sequence[Shift],
    prompts: Sequence[tuple[int, ...]],
    labels: Sequence[tuple[int, ...]],
    *,
    batch_size: int,
    additive: bool = False,
) -> list[int]:
    """For each prompt the index of the label with the highest log-likelihood, end token included.

    labels: token ids of each label's target. The prompt is run once; then all labels stand side by side
    in one row, each seeing the prompt and itself, so that no cache is copied.
    """
    best = [0] * len(prompts)
    tree = _LabelTree.of(labels, base.device)
    for batch in _batches(base, shifts, prompts, batch_size):
        mask, rest = batch.mask, batch.ids[:, batch.shared :]
        with _shifted(base, shifts, batch, additive):
            prefill = base.model(
                input_ids=rest,
                attention_mask=mask.long(),
                **places(base, mask, last=rest.shape[1]),
                past_key_values=batch.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        first = prefill.logits[:, -1].float().log_softmax(-1)
        scores = first[:, tree.starts]
        if not whole_layers(prefill.past_key_values, mask.shape[1]):
            scores = _recomputed_scores(base, shifts, batch, labels, additive)
        elif tree.inputs.numel():
            position = {}
            if places(base, mask):
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
    base: BaseModel,
    shifts: Sequence[Shift],
    batch: "_Batch",
    labels: Sequence[tuple[int, ...]],
    additive: bool,
) -> torch.Tensor:
    """(batch, labels) log-likelihoods, each label with its whole prompt: for models that forget keys."""
    prompt = batch.ids.shape[1]
    scores = []
    for label in labels:
        tokens = torch.tensor(label, device=base.device).expand(len(batch.ids), -1)
        mask = torch.cat([batch.mask, torch.ones_like(tokens, dtype=torch.bool)], dim=1)
        inside = torch.cat([batch.mask, torch.zeros_like(tokens, dtype=torch.bool)], dim=1)
        positions = shifts[0].shape.positions.mask(inside) if shifts else inside
        with injected(base.model, shifts, positions, additive=additive):
            logits = base.model(
                input_ids=torch.cat([batch.ids, tokens], dim=1),
                attention_mask=mask.long(),
                **places(base, mask),
                use_cache=False,
            ).logits
        logs = logits[:, prompt - 1 : -1].float().log_softmax(-1)
        scores.append(logs.gather(2, tokens[:, :, None]).sum(dim=(1, 2)))
    return torch.stack(scores, dim=1)


@dataclass(frozen=True)
class _Batch:
    """Prompts of similar length: a beginning all share, run already, and the rest padded on the left."""

    indices: list[int]
    ids: torch.Tensor
    """(batch, tokens)"""
    mask: torch.Tensor
    """(batch, tokens) bool, false at padding."""
    shared: int
    """Tokens of the shared beginning."""
    cache: DynamicCache | None
    """Of the shared beginning."""


def _batches(
    base: BaseModel, shifts: Sequence[Shift], prompts: Sequence[tuple[int, ...]], batch_size: int
) -> Iterator[_Batch]:
    if shifts:
        positions = shifts[0].shape.positions
        untouched = [prompt[: context_length(prompt, positions)] for prompt in prompts]
    else:
        untouched = [prompt[:-1] for prompt in prompts]
    beginning = list(untouched[0][: common_prefix(untouched)])
    layers = run_shared(base, beginning) if beginning else []
    if not layers:
        beginning = []
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        ids, mask = pad_left([prompts[index][len(beginning) :] for index in indices], base.device)
        first = torch.tensor(beginning, dtype=torch.long, device=base.device).expand(len(indices), -1)
        yield _Batch(
            indices=indices,
            ids=torch.cat([first, ids], dim=1),
            mask=torch.cat([torch.ones_like(first, dtype=torch.bool), mask], dim=1),
            shared=len(beginning),
            cache=repeat(layers, len(indices)) if layers else None,
        )


def _shifted(
    base: BaseModel, shifts: Sequence[Shift], batch: _Batch, additive: bool
) -> AbstractContextManager[None]:
    rest = batch.mask[:, batch.shared :]
    positions = shifts[0].shape.positions.mask(rest) if shifts else rest
    return injected(base.model, shifts, positions, additive=additive, prefill_only=True)
