"""A batch's loss when whole rows are run: what the plain path and LoRA compute in every step."""

from typing import Any

import torch
from torch.nn import functional as F

from edge.examples import Batch


def batch_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the target tokens, in nats.

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
    return F.cross_entropy(logits[kept].float(), batch.ids[:, 1:][:, columns][kept])
