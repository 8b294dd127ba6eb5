"""Tokens around a prompt and its answer, as the tokenizer and the chat template want them."""

from typing import TYPE_CHECKING

from fedperfit.protocol.model.bounds.tokenizers import tokens_of
from fedperfit.protocol.model.chat_template import rendered
from fedperfit.protocol.system.errors import InputError, PromptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def start_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the tokens that every row begins with.

    Those that the tokenizer itself puts in front. One that puts none there, has no chat template and does
    not refuse a start token says nothing: its start token is taken where it has one.

    Args:
        tokenizer: Tokenizer of a base model.
    """
    bare, whole = (tokens_of(tokenizer, ["x"], framed=own)[0] for own in (False, True))
    if whole != bare:
        places = [place for place in range(len(whole)) if bare and whole[place : place + len(bare)] == bare]
        return [int(token) for token in whole[: places[0] if places else len(whole)]]
    silent = not tokenizer.chat_template and tokenizer.init_kwargs.get("add_bos_token") is not False
    start = tokenizer.bos_token_id if silent else None
    return [] if start is None else [int(start)]


def closing_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the tokens that the tokenizer puts behind a text that an encoder reads, e.g. T5's end token.

    Args:
        tokenizer: Tokenizer of an encoder-decoder model.
    """
    bare, whole = (tokens_of(tokenizer, ["x"], framed=own)[0] for own in (False, True))
    behind = len(start_tokens(tokenizer)) + len(bare)
    return [int(token) for token in whole[behind:]]


def end_of_text(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the token that ends a text; raises InputError where the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise InputError("the base model's tokenizer has no end token")
    return int(tokenizer.eos_token_id)


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the token that ends the assistant's turn: the template's, where it is a special token.

    Args:
        tokenizer: Tokenizer with a chat template.

    Raises:
        InputError: There is no end token at all.
    """
    said = "x7q"  # in no template
    try:
        whole = rendered(tokenizer, [("user", "u"), ("assistant", said), ("user", "u")])
    except PromptError:
        return end_of_text(tokenizer)
    (ids,) = tokens_of(tokenizer, [whole.partition(said)[2].lstrip()])
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return int(ids[0]) if ids and ids[0] in special else end_of_text(tokenizer)
