"""Answers of the shifted model: greedy text, and the likeliest of a fixed set of labels."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise

import torch

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
    for indices, ids, mask in _batches(base, prompts, batch_size):
        with _shifted(base, shifts, mask, additive):
            rows = base.model.generate(
                input_ids=ids,
                attention_mask=mask.long(),
                max_new_tokens=min(MAX_NEW_TOKENS, base.context - ids.shape[1]),
                do_sample=False,
                num_beams=1,
                pad_token_id=base.tokenizer.eos_token_id,
            )
        texts = base.tokenizer.batch_decode(rows[:, ids.shape[1] :], skip_special_tokens=True)
        for index, text in zip(indices, texts, strict=True):
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
    for indices, ids, mask in _batches(base, prompts, batch_size):
        with _shifted(base, shifts, mask, additive):
            prefill = base.model(
                input_ids=ids,
                attention_mask=mask.long(),
                **places(base, mask),
                use_cache=True,
                logits_to_keep=1,
            )
        first = prefill.logits[:, -1].float().log_softmax(-1)
        scores = first[:, tree.starts]
        if tree.inputs.numel():
            position = {}
            if places(base, mask):
                position = {"position_ids": mask.sum(1, keepdim=True) + tree.depth}
            logits = base.model(
                input_ids=tree.inputs.expand(len(ids), -1),
                attention_mask=tree.attention(mask, prefill.logits.dtype),
                **position,
                past_key_values=prefill.past_key_values,
                use_cache=True,
            ).logits
            later = logits.float().log_softmax(-1).gather(2, tree.outputs.expand(len(ids), -1)[:, :, None])
            scores = scores.index_add(1, tree.label, later[:, :, 0])
        for index, choice in zip(indices, scores.argmax(-1).tolist(), strict=True):
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


def _batches(
    base: BaseModel, prompts: Sequence[tuple[int, ...]], batch_size: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Indices, ids and attention mask of batches of prompts of similar length."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        yield indices, *pad_left([prompts[index] for index in indices], base.device)


def _shifted(
    base: BaseModel, shifts: Sequence[Shift], mask: torch.Tensor, additive: bool
) -> AbstractContextManager[None]:
    positions = shifts[0].shape.positions.mask(mask) if shifts else mask
    return injected(base.model, shifts, positions, additive=additive, prefill_only=True)
