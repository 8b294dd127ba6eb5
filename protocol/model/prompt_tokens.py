"""Prompts as token ids: the one place where text that a model is asked becomes tokens."""

from collections.abc import Sequence

from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.bounds.tokenizers import tokens_of
from fedperfit.protocol.model.chat_template import Turns, before_answers, written_out


def prompt_tokens(base: BaseModel, prompts: Sequence[str | Turns]) -> list[list[int]]:
    """Tokenize prompts, each with the tokens around it that the model wants there, once.

    Args:
        base: Model whose tokenizer and chat template count.
        prompts: Texts as they stand, and conversations that the chat template writes out.

    Returns:
        Token ids of each prompt.

    Raises:
        InputError: A conversation cannot be written out, or the tokenizer fails.
    """
    if not prompts:
        return []
    texts = [p if isinstance(p, str) else written_out(base.tokenizer, p) for p in prompts]
    rows = tokens_of(base.tokenizer, texts)
    start = base.start
    opened = (row if row[: len(start)] == start else [*start, *row] for row in rows)
    return [[*row, *base.closing] for row in opened]


def prompt_length(base: BaseModel, row: Sequence[int]) -> int:
    """Count the tokens of a row that are its prompt, up to the answer to a conversation's last question.

    Args:
        base: Model whose chat template counts.
        row: Token ids of a prompt, or of a prompt and an answer to it.

    Returns:
        Number of the first tokens that are the prompt; all where none opens an answer.
    """
    opening = before_answers(base.tokenizer)
    places = range(len(row) - len(opening), -1, -1) if opening else ()
    ends = (place + len(opening) for place in places if list(row[place : place + len(opening)]) == opening)
    return next(ends, len(row))


def target_tokens(base: BaseModel, targets: Sequence[str], chat: bool) -> list[list[int]]:
    """Tokenize targets, each with the token that ends it.

    What a decoder writes behind an encoder is a text of its own, and begins as texts do.

    Args:
        base: Model whose tokenizer and chat template count.
        targets: Texts that follow prompts.
        chat: Whether they follow conversations, and so end as the assistant's turn does.

    Raises:
        InputError: The tokenizer has no end token, or fails.
    """
    if not targets:
        return []
    end = base.end_of_turn if chat else base.end_of_text
    rows = tokens_of(base.tokenizer, targets)
    start = base.start if base.mark else []
    return [[*start, *row, end] for row in rows]
