"""Reads hidden states of texts: at the last token after each decoder layer, or the mean over all tokens."""

from collections.abc import Callable, Sequence

import torch

from fedperfit.edge.engine.examples import position_arguments
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import changing, decoder_layers
from fedperfit.protocol.model.prompt_tokens import prompt_tokens, target_tokens
from fedperfit.protocol.tasks import Prompt

_ROWS = 16
"""Number of texts run side by side."""


def tokenize(base: BaseModel, prompt: Prompt, most: int = 0) -> tuple[int, ...]:
    """Tokenize a prompt or another text; a long one keeps its first tokens, if they are special, and its end.

    Args:
        base: model whose tokenizer counts.
        prompt: text to be read, or a conversation.
        most: most tokens kept; 0 for the model's context.
    """
    (row,) = prompt_tokens(base, [prompt])
    return _kept(base, row, most or base.context)


def tokenize_answered(base: BaseModel, prompt: Prompt, target: str) -> tuple[int, ...]:
    """Tokenize a prompt with a target after it, without an end token; a long row keeps its end.

    A text and its target are one text, but where an encoder reads the one and a decoder writes the other.

    Args:
        base: model whose tokenizer counts.
        prompt: text, or a conversation.
        target: text that answers it.
    """
    chat = not isinstance(prompt, str)
    if isinstance(prompt, str) and not base.mark:
        return tokenize(base, prompt + target)
    (row,) = prompt_tokens(base, [prompt])
    return _kept(base, [*row, *target_tokens(base, [target], chat)[0][:-1]], base.context)


def _kept(base: BaseModel, row: list[int], most: int) -> tuple[int, ...]:
    head = len(base.start)
    return (*row[:head], *row[head:][-(most - head) :])


def last_states(base: BaseModel, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Hidden states after each decoder layer at each row's last token.

    Args:
        base: the frozen model.
        rows: token ids.

    Returns:
        (layers, rows, d) in fp32 on the CPU.
    """

    def last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return hidden[torch.arange(len(mask)), mask.sum(1) - 1]

    return _pooled(base, rows, range(len(decoder_layers(base.model))), last)


def embeddings(base: BaseModel, texts: Sequence[str]) -> torch.Tensor:
    """Mean hidden state over each text's tokens after the last decoder layer.

    Args:
        base: the frozen model.
        texts: any texts.

    Returns:
        (texts, d) in fp32 on the CPU.
    """

    def mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weights = mask[..., None].to(hidden)
        return (hidden * weights).sum(1) / weights.sum(1)

    rows = [tokenize(base, text) for text in texts]
    return _pooled(base, rows, [len(decoder_layers(base.model)) - 1], mean)[0]


@torch.no_grad()
def _pooled(
    base: BaseModel,
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    pool: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Pooled states (layers, rows, d); rows run together by length, padded on the right."""
    size = base.card.hidden_size
    out = torch.empty(len(layers), len(rows), size)
    order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
    for begin in range(0, len(order), _ROWS):
        some = order[begin : begin + _ROWS]
        width = len(rows[some[-1]])
        ids = torch.zeros(len(some), width, dtype=torch.long)
        mask = torch.zeros(len(some), width, dtype=torch.bool)
        for place, number in enumerate(some):
            ids[place, : len(rows[number])] = torch.tensor(rows[number])
            mask[place, : len(rows[number])] = True
        ids, mask = ids.to(base.device), mask.to(base.device)
        kept: dict[int, torch.Tensor] = {}

        def keep(layer: int, hidden: torch.Tensor) -> torch.Tensor:
            kept[layer] = pool(hidden.float(), mask).cpu()  # noqa: B023 - used within the turn
            return hidden

        with changing(base.model, layers, keep):
            base.model(
                input_ids=ids, attention_mask=mask.long(), logits_to_keep=1, **position_arguments(base, mask)
            )
        for place, layer in enumerate(layers):
            out[place, some] = kept[layer]
    return out
