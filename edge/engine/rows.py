"""Batches of whole rows, and their losses: the plain way, for what keeps nothing between steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from fedperfit.edge.engine.examples import Example


@dataclass(frozen=True)
class Batch:
    """Prompts and targets in one row each, padded on the right."""

    ids: torch.Tensor
    """(batch, tokens)"""
    attention: torch.Tensor
    """(batch, tokens) bool, false at padding."""
    prompt: torch.Tensor
    """(batch, tokens) bool, true at prompt tokens."""

    @property
    def target(self) -> torch.Tensor:
        """(batch, tokens) bool, true at the tokens the loss is on."""
        return self.attention & ~self.prompt


def collate(examples: Sequence[Example], device: torch.device) -> Batch:
    """Pad `examples` to one batch."""
    prompts = torch.tensor([len(example.prompt) for example in examples])
    lengths = prompts + torch.tensor([len(example.target) for example in examples])
    width = int(lengths.max())
    rows = [[*e.prompt, *e.target, *[0] * (width - len(e.prompt) - len(e.target))] for e in examples]
    columns = torch.arange(width)
    return Batch(
        ids=torch.tensor(rows).to(device),
        attention=(columns < lengths[:, None]).to(device),
        prompt=(columns < prompts[:, None]).to(device),
    )


def batch_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the target tokens of all rows, in nats."""
    logits, tokens, _ = _predictions(model, batch)
    return F.cross_entropy(logits, tokens)


def row_losses(model: Any, batch: Batch) -> torch.Tensor:
    """(batch,): each row's mean cross-entropy over its target tokens, in nats."""
    logits, tokens, owners = _predictions(model, batch)
    losses = F.cross_entropy(logits, tokens, reduction="none")
    rows = len(batch.ids)
    return losses.new_zeros(rows).index_add(0, owners, losses) / owners.bincount(minlength=rows)


def _predictions(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each target token: logits (targets, vocabulary) fp32, the token, and the row it is in.

    Rows run without their last token, which is only predicted, and logits are made at target columns only.
    """
    predicted = batch.target[:, 1:]
    columns = predicted.any(dim=0).nonzero().flatten()
    logits = model(
        input_ids=batch.ids[:, :-1],
        attention_mask=batch.attention[:, :-1].long(),
        logits_to_keep=columns,
        use_cache=False,
    ).logits
    kept = predicted[:, columns]
    return logits[kept].float(), batch.ids[:, 1:][:, columns][kept], kept.nonzero()[:, 0]
