"""Attention of bfloat16 models that train on a CPU, in float32: its backward pass is three times as fast.

Exact up to rounding, of which there is less: only the result is rounded to bfloat16. Whatever has no gradient
is computed as before, to the bit, and so is every model in another type or on another device.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

Attended = tuple[torch.Tensor, None]
"""(batch, tokens, heads, head size), and no attention weights."""


def train_attention_in_float32() -> None:
    """Have all models of this process whose attention is torch's (`sdpa`) attend in this way."""
    AttentionInterface.register("sdpa", attend)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> Attended:
    """Attend as `sdpa` of transformers does.

    Args:
        module: The attention layer.
        query: (batch, heads, tokens, head size).
        key: (batch, heads of keys, earlier and these tokens, head size).
        value: As the keys.
        attention_mask: What is added to the scores, or whether they count; None is causal.
        options: The others of transformers, as they are.
    """
    trained = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if not (trained and query.dtype == torch.bfloat16 and query.device.type == "cpu"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    wide = (query.float(), key.float(), value.float())
    attended, weights = sdpa_attention_forward(module, *wide, attention_mask, **options)
    return attended.to(query.dtype), weights
