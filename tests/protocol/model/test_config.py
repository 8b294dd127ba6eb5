"""Head sizes are read from the configurations of every architecture, nested ones included."""

import pytest
from tests.protocol.tiny_models import CONFIGS
from transformers import Gemma3Config

from fedperfit.protocol.model.config import AttentionSizes, attention_sizes, text_config

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
