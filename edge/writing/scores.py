"""Log-likelihoods of tokens under the shifts: of those that are generated, and of a prompt's own."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor

from fedperfit.edge.engine.paths.plain import shifted_whole
from fedperfit.edge.engine.slab import Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.prompt_tokens import prompt_length
from fedperfit.protocol.system.errors import PromptError

_BLANK = "\u2581"
"""Mark that stands for a blank before a word in many vocabularies."""


@dataclass(frozen=True)
class TokenScore:
    """One token of a text and how likely it was."""

    text: str
    score: float | None = None
    """Log-likelihood in nats given all before it; None where nothing is before it."""
    likeliest: "tuple[TokenScore, ...]" = ()
    """Likeliest tokens in its place, the likeliest first."""


def scored(base: BaseModel, logs: torch.Tensor, token: int, likeliest: int) -> TokenScore:
    """Score a token among all that could stand in its place.

    Args:
        base: model whose vocabulary it is.
        logs: (vocabulary,) log-likelihoods.
        token: token id.
        likeliest: number of likeliest tokens to tell beside it.
    """
    best = logs.topk(min(likeliest, len(logs)))
    others = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    beside = tuple(TokenScore(_text(base, other), score) for other, score in others)
    return TokenScore(_text(base, token), float(logs[token]), beside)


@torch.inference_mode()
def prompt_scores(base: BaseModel, stack: Stack, prompt: Sequence[int], likeliest: int) -> list[TokenScore]:
    """Score each token of a prompt, in one pass with the shifts at the prompt's positions.

    Where it is a conversation as the chat template writes it, with an answer, the positions are those before
    the answer, as in training; else they count over all of it.

    Args:
        base: the frozen model.
        stack: shifts that act at the prompt's positions.
        prompt: token ids, at least one.
        likeliest: number of likeliest tokens to tell beside each.

    Raises:
        PromptError: an encoder reads the prompt, and predicts nothing of it.
    """
    if base.mark:
        raise PromptError("echo with logprobs: an encoder-decoder model predicts nothing of what it reads")
    ids = torch.tensor([list(prompt)], device=base.device)
    with shifted_whole(base, stack, prompt_length(base, prompt)):
        logits = base.model(input_ids=ids, use_cache=False).logits
    first = TokenScore(_text(base, prompt[0]))
    places = zip(logits[0, :-1], prompt[1:], strict=True)
    return [first, *(scored(base, row.float().log_softmax(-1), token, likeliest) for row, token in places)]


class Recorder(LogitsProcessor):
    """Keeps the log-likelihoods that the next token is chosen by, and leaves the choice alone."""

    def __init__(self) -> None:
        """Start with no log-likelihoods."""
        self.logs = torch.empty(0)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Keep the scores of one row, (1, vocabulary), and return them as they are."""
        self.logs = scores[0].float().log_softmax(-1)
        return scores


def _text(base: BaseModel, token: int) -> str:
    text = str(base.tokenizer.decode([token]))
    piece = base.tokenizer.convert_ids_to_tokens(token)
    return f" {text.lstrip()}" if str(piece).startswith(_BLANK) else text
