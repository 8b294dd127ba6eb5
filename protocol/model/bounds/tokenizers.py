"""Tokenizers that anybody may have written: what they make of a text is bounded, and errors are one line."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fedperfit.protocol.system.errors import InputError, PromptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_GROWTH = 1 << 16
"""Times that a tokenizer's rules may make a text longer, in the worst case."""
_LONGEST_FRAME = 1 << 16
"""Bytes of the description of what a tokenizer puts around a text."""


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase", embeddings: int) -> None:
    """Check that a tokenizer can be the model's, before any text is given to it.

    Args:
        tokenizer: As it was read.
        embeddings: Number of tokens that the model knows.

    Raises:
        InputError: It cannot.
    """
    if tokenizer.vocab_size > embeddings:
        raise InputError(f"its tokenizer has {tokenizer.vocab_size} tokens, the model {embeddings}")
    if not isinstance(tokenizer.model_max_length, int | float):
        raise InputError(f"model_max_length={str(tokenizer.model_max_length)[:80]!r}: expected a number")
    rules = getattr(tokenizer, "backend_tokenizer", None)
    if max(_growth(getattr(rules, part, None)) for part in ("normalizer", "decoder")) > _MOST_GROWTH:
        raise InputError(f"its tokenizer makes a text more than {_MOST_GROWTH} times as long")
    if len(_described(getattr(rules, "post_processor", None))) > _LONGEST_FRAME:
        raise InputError("its tokenizer puts too many tokens around a text")
    added = tokenizer.added_tokens_decoder  # some are never in a text, and beyond what the model knows
    known = [number for number in tokenizer.get_vocab().values() if number not in added]
    ends = [number for number in (tokenizer.bos_token_id, tokenizer.eos_token_id) if number is not None]
    largest = max(*known, *ends, *tokens_of(tokenizer, ["x"], framed=True)[0], 0)
    if largest >= embeddings:
        raise InputError(f"its tokenizer has a token {largest}, the model {embeddings} tokens")


def tokens_of(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, framed: bool = False
) -> list[list[int]]:
    """Turn texts into token ids.

    Args:
        tokenizer: Any tokenizer.
        texts: What is turned into tokens.
        framed: Whether with the tokens that the tokenizer itself puts around a text.

    Raises:
        PromptError: The tokenizer fails.
    """
    with errors_told():
        rows: list[list[int]] = tokenizer(list(texts), add_special_tokens=framed)["input_ids"]
        return rows


@contextmanager
def errors_told() -> Iterator[None]:
    """Have whatever goes wrong in a tokenizer, panics of its Rust among it, raise PromptError in one line."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # a panic is no `Exception`, and of no type that can be imported
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PromptError(f"the base model's tokenizer fails: {reason}") from None


def _growth(part: Any) -> int:
    """Return how many times as long a part of a tokenizer may make a text of one letter."""
    growth = 1
    for rule in _rules(json.loads(_described(part) or b"null")):
        growth *= 1 + len(str(rule.get("content", "")))  # what is replaced may be nothing at all
        growth += len(str(rule.get("prepend", "")))
    return growth


def _rules(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all tables in a JSON value, in order."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _rules(part)


def _described(part: Any) -> bytes:
    """Return a part of a tokenizer as JSON; nothing where there is none, or only Python can say."""
    try:
        return bytes(part.__getstate__()) if part is not None else b""
    except Exception:  # tokenizers raises no narrower one, where the part is Python of an installed package
        return b""
