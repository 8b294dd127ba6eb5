"""Training pairs as token ids."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Pair

KEPT_TAIL = 32
"""Tokens kept at the end of a prompt that must be cut, so that the words after the field stay."""


@dataclass(frozen=True)
class Example:
    """One pair as token ids; the target ends with the end token."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]


def encode(base: BaseModel, pairs: Sequence[Pair], *, reserve: int = 0) -> list[Example]:
    """Tokenize `pairs`. A row longer than the model's context loses tokens of its field.

    reserve: tokens left free after the prompt where the target is shorter.

    Raises InputError when a target alone fills the context.
    """
    if not pairs:
        return []
    tokenizer = base.tokenizer
    prompts = tokenizer([pair.prompt for pair in pairs], add_special_tokens=False)["input_ids"]
    targets = tokenizer([pair.target for pair in pairs], add_special_tokens=False)["input_ids"]
    context = base.context
    examples = []
    for prompt, target in zip(prompts, targets, strict=True):
        row = [*base.start, *prompt]
        room = context - max(len(target) + 1, reserve)
        if room <= KEPT_TAIL:
            raise InputError(f"a target of {len(target)} tokens leaves no room in a context of {context}")
        if len(row) > room:
            row = row[: room - KEPT_TAIL] + row[-KEPT_TAIL:]
        examples.append(Example(tuple(row), (*target, tokenizer.eos_token_id)))
    return examples


def pad_left(prompts: Sequence[tuple[int, ...]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and attention mask (batch, tokens) of prompts to be continued, padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros(len(prompts), width, dtype=torch.bool)
    for index, prompt in enumerate(prompts):
        ids[index, width - len(prompt) :] = torch.tensor(prompt)
        mask[index, width - len(prompt) :] = True
    return ids.to(device), mask.to(device)


def position_arguments(base: BaseModel, mask: torch.Tensor, last: int = 0) -> dict[str, torch.Tensor]:
    """`position_ids` of the `last` columns (0: all) that do not count padding, for models that take them.

    mask: (batch, tokens) bool, true at tokens.
    """
    if "position_ids" not in inspect.signature(base.model.forward).parameters:
        return {}
    return {"position_ids": (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -last:]}
