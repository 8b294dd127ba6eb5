"""How like two texts are, in any script: ROUGE, chrF and BLEU, each from 0 to 1."""

import unicodedata
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
"""Scripts that put no blanks between words."""
_FOREIGN = regex.compile(r"[\p{L}--\p{Latin}]|[\p{Nd}--[0-9]]|[\uff21-\uff3a\uff41-\uff5a]", regex.V1)
"""Letters that are not Latin, digits that are not `0` to `9`, and Latin letters of full width."""
_PLAIN = regex.compile(r"[a-z0-9]")
_WORDS = regex.compile(rf"[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+|\p{{So}}", regex.V1)
_LETTERS = regex.compile(rf"([{UNSPACED}]\p{{M}}*)", regex.V1)


class _AnyScript:
    """Words of a text in any script; characters where blanks separate none, or where there are no words."""

    def tokenize(self, text: str) -> list[str]:
        words = _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())
        return words or [letter for letter in text if not letter.isspace()]


@cache
def _scorer(kind: str, any_script: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    tokenizer = _AnyScript() if any_script else None
    return RougeScorer([kind], use_stemmer=False, tokenizer=tokenizer)


def _rouge(kind: str, answer: str, gold: str) -> float:
    """Compare two texts: with LaMP's tokenizer where both are Latin, else with one for any script."""
    plain = _PLAIN.search(gold.lower()) and not _FOREIGN.search(answer) and not _FOREIGN.search(gold)
    return float(_scorer(kind, not plain).score(gold, answer)[kind].fmeasure)


def _chrf(answer: str, gold: str) -> float:
    from sacrebleu import sentence_chrf

    return min(1.0, sentence_chrf(answer, [gold]).score / 100)


@cache
def _bleu_scorer() -> Any:
    from sacrebleu import BLEU

    return BLEU(effective_order=True)


def _bleu(answer: str, gold: str) -> float:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

    spaced = [_LETTERS.sub(r" \1 ", text) for text in (answer, gold)]
    try:
        return min(1.0, float(_bleu_scorer().sentence_score(spaced[0], [spaced[1]]).score) / 100)
    finally:
        for tokenizer in (Tokenizer13a, TokenizerRegexp):
            tokenizer.__call__.cache_clear()  # each keeps thousands of texts, also of people who left


TEXT_METRICS: dict[str, Callable[[str, str], float]] = {
    "rouge-1": partial(_rouge, "rouge1"),
    "rouge-L": partial(_rouge, "rougeL"),
    "chrf": _chrf,
    "bleu": _bleu,
}
"""Score of an answer beside the gold answer: ROUGE F-measures, and sacrebleu's scores of a sentence."""
