"""What is read from a Hugging Face configuration, whatever the architecture."""

import copy
from dataclasses import dataclass
from typing import Any

_LONGEST = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "context_length")
_WINDOWS = (
    "sliding_window",
    "attention_chunk_size",
    "window_size",
    "attention_window_size",
    "local_attention",
)


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


def decoder_config(config: Any) -> Any:
    """Return the configuration of an encoder-decoder model's decoder, as of a model of its own.

    Args:
        config: A `transformers.PretrainedConfig`; it stays as it is.
    """
    decoder = copy.copy(config.get_text_config(decoder=True))
    depth = getattr(config, "num_decoder_layers", None)
    if depth is not None:
        decoder.num_hidden_layers = depth
    decoder.is_encoder_decoder = False
    return decoder


def give_named_outputs(model: Any) -> None:
    """Have a model and its parts return what they are asked for by name, whatever their configurations say.

    Args:
        model: A `transformers.PreTrainedModel`.
    """
    for part in model.modules():
        config: Any = getattr(part, "config", None)
        if hasattr(config, "return_dict"):
            config.return_dict, config.output_attentions, config.output_hidden_states = True, False, False


def longest_input(config: Any) -> int | None:
    """Return the longest input in tokens that a configuration names, None where it names none.

    Architectures whose positions are relative (ALiBi, recurrent layers) may leave it out. With LongRoPE it is
    the length up to which positions stand for the same: longer rows turn all of a batch's into others.

    Args:
        config: A `transformers.PretrainedConfig`.
    """
    text = text_config(config)
    named = [_stated(text, name) for name in _LONGEST]
    known = [length for length in named if isinstance(length, int) and length > 0][:1]
    stated = getattr(text, "rope_parameters", None) or {}
    ropes = [
        stated,
        *(rope for rope in stated.values() if isinstance(rope, dict)),
    ]  # of all or each kind of layers
    alike = [
        rope["original_max_position_embeddings"] for rope in ropes if rope.get("rope_type") == "longrope"
    ]
    return min([*known, *alike], default=None)


def _stated(config: Any, name: str) -> Any:
    """Return a field, or None where there is none, or it is one that raises an error of its own."""
    try:
        return getattr(config, name, None)
    except NotImplementedError:  # XLNet's length
        return None


def attention_window(config: Any) -> int | None:
    """Return the shortest window or chunk of tokens that any layer looks back over, None for no window.

    Args:
        config: A `transformers.PretrainedConfig`.
    """
    named = [getattr(text_config(config), name, None) for name in _WINDOWS]
    return min((size for size in named if isinstance(size, int) and size > 0), default=None)


def attention_sizes(config: Any) -> AttentionSizes:
    """Read the sizes of the attention heads, with the defaults of architectures that leave them out.

    Those of the widest layer where layers differ, and 0 where no layer attends, e.g. of Mamba.

    Args:
        config: A `transformers.PretrainedConfig`.
    """
    text = text_config(config)
    try:
        return _sizes(text)
    except RuntimeError:  # by transformers, where a size differs between layers
        layers = [_sizes(text.per_layer_config[number]) for number in range(text.num_hidden_layers)]
        return max(layers, key=lambda sizes: sizes.key_value_heads * sizes.head_size)


def _sizes(config: Any) -> AttentionSizes:
    if not hasattr(config, "num_attention_heads"):
        return AttentionSizes(heads=0, key_value_heads=0, head_size=0)
    heads = config.num_attention_heads
    return AttentionSizes(
        heads=heads,
        key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
    )
