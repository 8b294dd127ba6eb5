"""Training pairs as token ids, and padding of prompts."""

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.bounds.tokenizers import tokens_of
from fedperfit.protocol.model.prompt_tokens import prompt_tokens, target_tokens
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Conversation, Pair, Prompt
from fedperfit.protocol.tasks.prompt import SYSTEM
from fedperfit.protocol.tasks.task import first_words

logger = logging.getLogger("fedperfit.edge")

KEPT_TAIL = 32
"""Tokens kept at the end of a prompt that must be cut, so that the words after the field stay."""


@dataclass(frozen=True)
class Example:
    """One training pair as token ids."""

    prompt: tuple[int, ...]
    """Token ids of the prompt, start token included where the model has one."""
    target: tuple[int, ...]
    """Token ids of the target, end token included."""


def encode(base: BaseModel, pairs: Sequence[Pair], *, reserve: int = 0) -> list[Example]:
    """Tokenize training pairs; a row longer than the model's context loses tokens of its field.

    A target that leaves the prompt no room even then loses its last tokens, and its end.

    Args:
        base: model whose tokenizer and context count.
        pairs: prompts with their targets, all of one form.
        reserve: fewest tokens left free after a prompt.

    Returns:
        One example per pair, in their order.

    Raises:
        InputError: what is reserved fills the context, or the model has no chat template.
    """
    if not pairs:
        return []
    chat = not isinstance(pairs[0].prompt, str)
    rows = prompt_tokens(base, [pair.prompt for pair in pairs])
    targets = target_tokens(base, [pair.target for pair in pairs], chat)
    context = base.context
    longest = context - KEPT_TAIL - 1
    if reserve > longest:
        raise InputError(f"{reserve} tokens for an answer leave no room in a context of {context}")
    examples, lengths = [], dict[str, int]()
    for pair, row, target in zip(pairs, rows, targets, strict=True):
        room = context - max(min(len(target), longest), reserve)
        if len(row) > room:
            row = _without_oldest(base, pair.prompt, row, room, lengths)
            row = row if len(row) <= room else row[: room - KEPT_TAIL] + row[-KEPT_TAIL:]
        examples.append(Example(tuple(row), tuple(target[:longest])))
    cut = sum(len(target) > longest for target in targets)
    if cut:
        logger.warning("%d of %d texts to learn are cut to %d tokens", cut, len(targets), longest)
    return examples


def _without_oldest(
    base: BaseModel, prompt: Prompt, row: list[int], room: int, lengths: dict[str, int]
) -> list[int]:
    """Token ids of a conversation without the oldest turns that do not fit, but with what the system says.

    Turns are left out up to the one before which it may fit by the lengths of their texts; only from there on
    is what is left written out and counted.

    Args:
        base: model whose tokenizer and context count.
        prompt: conversation, or a text, which stays whole.
        row: its token ids.
        room: most token ids that are wanted.
        lengths: numbers of tokens by text, which grow by those that are counted here.
    """
    if isinstance(prompt, str):
        return row
    new = list({turn.text for turn in prompt} - set(lengths))
    lengths.update(zip(new, map(len, tokens_of(base.tokenizer, new)), strict=True) if new else ())
    around = (len(row) - sum(lengths[turn.text] for turn in prompt)) / len(prompt)
    said = [turn for turn in prompt[:-1] if turn.role != SYSTEM]
    over = float(len(row) - room)
    for number, oldest in enumerate(said, start=1):
        over -= lengths[oldest.text] + around
        if number < len(said) and over > lengths[said[number].text] + around:
            continue
        (row,) = prompt_tokens(base, [_latest(prompt, number)])
        if len(row) <= room:
            break
    return row


def _latest(prompt: Conversation, left_out: int) -> Conversation:
    """A conversation without so many of the oldest turns that are not the system's."""
    others = [place for place, turn in enumerate(prompt) if turn.role != SYSTEM]
    gone = set(others[:left_out])
    return tuple(turn for place, turn in enumerate(prompt) if place not in gone)


def latest_turns(base: BaseModel) -> Callable[[Conversation], Conversation]:
    """Make what leaves out of a conversation the oldest turns whose text alone overfills the model's context.

    No prompt of training has room for them, so it is the same with and without them. What the system says,
    and the last turn, stay.

    Args:
        base: model whose tokenizer and context count.
    """
    lengths = dict[str, int]()

    def length(text: str) -> int:
        """Fewest tokens that a prompt of training has of a text: one may join what comes before it."""
        if text not in lengths:
            (row,) = tokens_of(base.tokenizer, [first_words(text.strip())])
            lengths[text] = max(0, len(row) - 1)
        return lengths[text]

    def cut(turns: Conversation) -> Conversation:
        room = base.context - sum(length(turn.text) for turn in turns if turn.role == SYSTEM)
        others = [turn for turn in turns if turn.role != SYSTEM]
        for number, turn in enumerate(reversed(others)):
            room -= length(turn.text)
            if room < 0 and number:
                return _latest(turns, len(others) - number)
        return turns

    return cut


def pad_left(prompts: Sequence[tuple[int, ...]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Batch prompts that are to be continued, padded on the left.

    Args:
        prompts: token ids, at least one prompt.
        device: where the tensors are wanted.

    Returns:
        Ids (batch, tokens), 0 at padding, and mask (batch, tokens) bool, false at padding.
    """
    width = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros(len(prompts), width, dtype=torch.bool)
    for index, prompt in enumerate(prompts):
        ids[index, width - len(prompt) :] = torch.tensor(prompt)
        mask[index, width - len(prompt) :] = True
    return ids.to(device), mask.to(device)


def position_arguments(base: BaseModel, mask: torch.Tensor, last: int = 0) -> dict[str, torch.Tensor]:
    """Position ids that do not count padding, as an argument for models that take them.

    Args:
        base: model to be called.
        mask: (batch, tokens) bool, false at padding.
        last: number of last columns that the call runs; 0 for all.

    Returns:
        `position_ids` (batch, columns run), or nothing where the model has no such argument.
    """
    if "position_ids" not in inspect.signature(base.model.forward).parameters:
        return {}
    return {"position_ids": (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -last:]}
