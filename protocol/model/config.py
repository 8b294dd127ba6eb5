"""What is read from a Hugging Face configuration, whatever the architecture."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AttentionSizes:
    """The attention heads of each decoder layer."""

    heads: int
    """Number of query heads."""
    key_value_heads: int
    """Heads of keys and of values; fewer than `heads` under grouped-query attention."""
    head_size: int
    """Width of one head; not always the hidden size over `heads`."""


def text_config(config: Any) -> Any:
    """Return the configuration of the language model, which multimodal models nest in their own.

    Args:
        config: A `transformers.PretrainedConfig`, or None for a model without one.
    """
    return getattr(config, "text_config", config)


def attention_sizes(config: Any) -> AttentionSizes:
    """Read the sizes of the attention heads, with the defaults of architectures that leave them out."""
    text = text_config(config)
    heads = text.num_attention_heads
    return AttentionSizes(
        heads=heads,
        key_value_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // heads,
    )
