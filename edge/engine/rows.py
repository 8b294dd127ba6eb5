"""Batches of whole rows, and their losses, for methods that keep nothing between steps."""

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
    """(batch, tokens) token ids, 0 at padding."""
    attention: torch.Tensor
    """(batch, tokens) bool, false at padding."""
    prompt: torch.Tensor
    """(batch, tokens) bool, true at prompt tokens."""

    @property
    def target(self) -> torch.Tensor:
        """Tokens that the loss is on, (batch, tokens) bool."""
        return self.attention & ~self.prompt


def collate(examples: Sequence[Example], device: torch.device) -> Batch:
    """Pad examples to one batch on a device.

    Args:
        examples: at least one.
        device: where the tensors are wanted.
    """
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
    """Mean cross-entropy over the target tokens of all rows together, in nats.

    Args:
        model: causal language model of transformers.
        batch: padded rows on the model's device.
    """
    logits, tokens, _ = _predictions(model, batch)
    return F.cross_entropy(logits, tokens)


def row_losses(model: Any, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the target tokens of each row, (batch,), in nats.

    Args:
        model: causal language model of transformers.
        batch: padded rows on the model's device.
    """
    logits, tokens, owners = _predictions(model, batch)
    losses = F.cross_entropy(logits, tokens, reduction="none")
    rows = len(batch.ids)
    return losses.new_zeros(rows).index_add(0, owners, losses) / owners.bincount(minlength=rows)


def _predictions(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (targets, vocabulary) in fp32 for all target tokens, with the token and the row of each.

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
    targets = predicted[:, columns]
    return logits[targets].float(), batch.ids[:, 1:][:, columns][targets], targets.nonzero()[:, 0]
