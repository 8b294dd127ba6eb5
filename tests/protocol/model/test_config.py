"""Head sizes are read from the configurations of every architecture, nested ones included."""

import pytest
import torch
from tests.protocol.tiny_models import CONFIGS
from transformers import AutoModelForCausalLM, Gemma3Config

from fedperfit.protocol.model.config import AttentionSizes, attention_sizes, longest_input, text_config

SIZES = {
    "llama": AttentionSizes(4, 2, 4),
    "gpt2": AttentionSizes(4, 4, 4),
    "gpt_neox": AttentionSizes(4, 4, 4),
    "gemma": AttentionSizes(4, 1, 8),
}


@pytest.mark.parametrize(("name", "expected"), SIZES.items())
def test_the_sizes_of_the_attention_heads(name: str, expected: AttentionSizes) -> None:
    assert attention_sizes(CONFIGS[name]()) == expected


def test_a_multimodal_model_is_described_by_its_language_model() -> None:
    text = CONFIGS["gemma3"]()
    nested = Gemma3Config(text_config=text)
    assert text_config(nested) is nested.text_config
    assert attention_sizes(nested) == attention_sizes(text) == AttentionSizes(4, 2, 8)
    assert text_config(None) is None


def test_rows_are_no_longer_than_longrope_leaves_positions_alike() -> None:
    config = CONFIGS["llama"]()
    factors = {"short_factor": [1.0, 1.0], "long_factor": [2.0, 3.0]}
    rope = {"rope_type": "longrope", **factors, "original_max_position_embeddings": 20, "rope_theta": 1e4}
    assert longest_input(config) > 30
    config.rope_parameters = rope
    assert longest_input(config) == 20
    model = AutoModelForCausalLM.from_config(config).eval()
    row = torch.arange(3, 33)[None]

    @torch.no_grad()
    def logits(length: int) -> torch.Tensor:
        return model(input_ids=row[:, :length]).logits[:, :10]

    assert torch.allclose(logits(10), logits(20), atol=1e-4)
    assert not torch.allclose(logits(10), logits(21), atol=1e-2)
    config.rope_parameters = {"full_attention": rope, "sliding_attention": {"rope_type": "default"}}
    assert longest_input(config) == 20


def test_an_architecture_without_a_longest_input_is_none_of_the_fields():
    from transformers import XLNetConfig

    assert longest_input(XLNetConfig()) is None
