"""Hidden states of texts: of their last token after each decoder layer, or the mean over their tokens."""

from collections.abc import Callable, Sequence

import torch

from fedperfit.edge.engine.examples import position_arguments
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import changing, decoder_layers

_ROWS = 16
"""Texts run side by side."""


def tokenize(base: BaseModel, text: str, most: int = 0) -> tuple[int, ...]:
    """Token ids, the start token first where the model has one.

    Of a text longer than `most` tokens (0: the model's context) the end is kept.
    """
    start = base.start
    ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    return (*start, *ids[-((most or base.context) - len(start)) :])


def last_states(base: BaseModel, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """(layers, rows, d) fp32, on the CPU: after each decoder layer, at each row's last token."""

    def last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return hidden[torch.arange(len(mask)), mask.sum(1) - 1]

    return _pooled(base, rows, range(len(decoder_layers(base.model))), last)


def embeddings(base: BaseModel, texts: Sequence[str]) -> torch.Tensor:
    """(texts, d) fp32, on the CPU: the mean over a text's tokens after the last decoder layer."""

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
    """Rows stand side by side by length, padded on the right, which no earlier token sees."""
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
