"""Attention of bfloat16 models: in float32 where it is trained, and as in transformers everywhere else."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers.integrations import sdpa_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from fedperfit.protocol.model.attention import attend
from fedperfit.protocol.model.base_model import EMBEDDED, load

LAYER = nn.Module()
MASKS = {
    "causal": None,
    "added": torch.zeros(2, 1, 5, 7).masked_fill(torch.ones(5, 7).triu(3).bool(), float("-inf")),
    "true or false": torch.ones(2, 1, 5, 7).tril(2).bool(),
}


def inputs(dtype: torch.dtype, *, trained: bool, keys: int = 7) -> list[torch.Tensor]:
    start = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 5, 8), (2, 4, keys, 8), (2, 4, keys, 8)]
    return [torch.randn(shape, generator=start).to(dtype).requires_grad_(trained) for shape in shapes]


def mask_of(kind: str, dtype: torch.dtype) -> tuple[torch.Tensor | None, int]:
    mask = MASKS[kind]
    if mask is None:
        return None, 5
    return (mask.to(dtype) if mask.is_floating_point() else mask), 7


@pytest.mark.parametrize("kind", MASKS)
def test_gradients_are_nearer_to_those_of_float32_than_in_bfloat16(kind: str) -> None:
    def gradients(attention: Any, dtype: torch.dtype) -> list[torch.Tensor]:
        mask, keys = mask_of(kind, dtype)
        tensors = inputs(torch.bfloat16, trained=False, keys=keys)  # what all of them begin with
        tensors = [tensor.to(dtype).requires_grad_() for tensor in tensors]
        out, weights = attention(LAYER, *tensors, mask, scaling=0.3)
        assert weights is None
        assert out.dtype == dtype
        return [out.detach(), *torch.autograd.grad(out.float().square().sum(), tensors)]

    exact = gradients(sdpa_attention_forward, torch.float32)
    for here, narrow, right in zip(
        gradients(attend, torch.bfloat16),
        gradients(sdpa_attention_forward, torch.bfloat16),
        exact,
        strict=True,
    ):
        off = (here - right).norm() / right.norm()
        assert off < 0.01
        assert off <= (narrow - right).norm() / right.norm() + 1e-4


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("dtype", "trained"), [(torch.bfloat16, False), (torch.float32, True)])
def test_all_else_is_as_before_to_the_bit(kind: str, dtype: torch.dtype, trained: bool) -> None:
    mask, keys = mask_of(kind, dtype)
    tensors = inputs(dtype, trained=trained, keys=keys)
    expected, _ = sdpa_attention_forward(LAYER, *tensors, mask)
    assert torch.equal(attend(LAYER, *tensors, mask)[0], expected)


@pytest.mark.parametrize(("trained", "widths"), [(True, {torch.float32}), (False, {torch.bfloat16})])
def test_a_loaded_model_attends_so(
    trained: bool, widths: set[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, seen = nn.functional.scaled_dot_product_attention, set()

    def heard(query: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        seen.add(query.dtype)
        return plain(query, *args, **options)

    base = load(EMBEDDED, device="cpu", dtype="bfloat16")
    monkeypatch.setattr(sdpa_attention.torch.nn.functional, "scaled_dot_product_attention", heard)
    rows = torch.zeros(1, 4, base.card.hidden_size, dtype=torch.bfloat16, requires_grad=trained)
    base.model(inputs_embeds=rows)
    assert seen == widths
