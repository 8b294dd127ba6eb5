"""Answers of the shifted model: greedy text, and the likeliest of a fixed set of labels."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

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

    labels: token ids of each label's target. The prompt is run once; labels share its cache.
    """
    best = [0] * len(prompts)
    width = max(len(label) for label in labels)
    padded = torch.tensor([[*label, *[0] * (width - len(label))] for label in labels], device=base.device)
    scored = torch.tensor([[i < len(label) for i in range(width)] for label in labels], device=base.device)
    for indices, ids, mask in _batches(base, prompts, batch_size):
        with _shifted(base, shifts, mask, additive):
            prefill = base.model(
                input_ids=ids,
                attention_mask=mask.long(),
                **places(base, mask),
                use_cache=True,
                logits_to_keep=1,
            )
        first = prefill.logits[:, -1].float().log_softmax(-1)[:, padded[:, 0]]
        rows, count = len(ids), len(labels)
        cache = prefill.past_key_values
        cache.batch_repeat_interleave(count)
        attention = torch.cat([mask, mask.new_ones(rows, width - 1)], dim=1).repeat_interleave(count, dim=0)
        inputs = padded[:, :-1].repeat(rows, 1)
        logits = base.model(
            input_ids=inputs,
            attention_mask=attention.long(),
            **places(base, attention, last=inputs.shape[1]),
            past_key_values=cache,
            use_cache=True,
        ).logits
        later = logits.float().log_softmax(-1).gather(2, padded[:, 1:].repeat(rows, 1)[:, :, None])[:, :, 0]
        later = (later.view(rows, count, width - 1) * scored[:, 1:]).sum(-1)
        for index, choice in zip(indices, (first + later).argmax(-1).tolist(), strict=True):
            best[index] = choice
    return best


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
