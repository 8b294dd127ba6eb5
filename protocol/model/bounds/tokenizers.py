"""Tokenizers that anybody may have written: what they make of a text is bounded, and errors are one line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fedperfit.protocol.system.errors import InputError, PromptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_GROWTH = 1 << 16
"""Times that a tokenizer's rules may make a text longer, in the worst case."""
_LONGEST_FRAME = 1 << 16
"""Bytes of the description of what a tokenizer puts around a text."""
_COMPOSED = 4
"""Most characters that NFC makes one of."""


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


def most_characters(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """Return the most characters of a text that a token can hold; None where one may stand for any number.

    Args:
        tokenizer: Any tokenizer. Known is this of byte-pair encodings that know all bytes and drop no letter.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    rules = getattr(tokenizer, "backend_tokenizer", None)
    if rules is None or type(rules.model).__name__ != "BPE" or rules.truncation is not None:
        return None
    parts = [
        _rules(json.loads(_described(part) or b"null")) for part in (rules.normalizer, rules.pre_tokenizer)
    ]
    normalizers, splitters = ([part for part in table if "type" in part] for table in parts)
    vocabulary, added = tokenizer.get_vocab(), tokenizer.added_tokens_decoder.values()
    if any(part["type"] == "ByteLevel" for part in splitters):
        every_byte = set(ByteLevel.alphabet())
    else:
        every_byte = {f"<0x{byte:02X}>" for byte in range(256)} if rules.model.byte_fallback else {""}
    dropping = any(token.lstrip or token.rstrip for token in added) or not every_byte <= vocabulary.keys()
    if dropping or not all(map(_keeps, normalizers)) or not all(map(_splits, splitters)):
        return None
    composed = any(part["type"] == "NFC" for part in normalizers)
    return max(map(len, vocabulary)) * (_COMPOSED if composed else 1)


def _keeps(rule: Mapping[str, Any]) -> bool:
    """Whether a rule of a normalizer makes no text shorter, but for letters that it composes."""
    if rule["type"] != "Replace":
        return rule["type"] in ("Sequence", "Prepend", "NFC")
    replaced = rule["pattern"].get("String")
    return isinstance(replaced, str) and len(replaced) <= len(rule["content"])


def _splits(rule: Mapping[str, Any]) -> bool:
    """Whether a rule only says where words end, and drops nothing between them."""
    known = ("Sequence", "ByteLevel", "Metaspace", "Digits", "Punctuation", "Split")
    return rule["type"] in known and rule.get("behavior") != "Removed"


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
