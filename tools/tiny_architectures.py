"""Tiny random models of every architecture that writes text, for tests and the tables in the docs.

Each is the architecture's own default configuration with all sizes cut down, so that what makes it special,
e.g. windows, experts, recurrent layers or images, stays.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from fedperfit.protocol.model.base_model import BaseModel, BaseModelCard
from fedperfit.protocol.model.config import text_config
from fedperfit.protocol.model.encoder_decoder import EncoderDecoder

_MOST_PARAMETERS = 3_000_000
"""Models that stay larger although cut down are left out."""
_DEPTH, _HEADS, _SIZE, _WINDOW = 4, 4, 32, 8
_SIZES: Mapping[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 512),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), _SIZE),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), _DEPTH),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), _DEPTH),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), _HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), _HEADS),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 128),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "window_size"), _WINDOW),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "head_dim"), 8),
    **dict.fromkeys(("state_size", "mamba_d_state", "hidden_size_per_layer_input"), 8),
    **{"num_key_value_heads": 2, "num_experts_per_tok": 2, "num_kv_shared_layers": 0},
    **{"qk_rope_head_dim": 4, "v_head_dim": 6, "rotary_dim": 4},
    **{"initializer_range": 0.1, "init_std": 0.1, "d_kv": 8, "d_ff": 48, "local_radius": _WINDOW},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "is_decoder": True},
    "attention_types": [[["global", "local"], _DEPTH // 2]],
}
_LATENT = {"head_dim": 4, "num_key_value_heads": _HEADS}
_OWN: Mapping[str, Mapping[str, Any]] = {
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "zaya": {"num_experts_per_tok": 1},
    "recurrent_gemma": {"lru_width": _SIZE, "attention_window_size": _WINDOW},
    "granitemoehybrid": {
        **{"mamba_n_heads": 8, "mamba_d_head": 8, "layer_types": ["mamba", "attention"] * 2},
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    "gemma3n_text": {"activation_sparsity_pattern": [0.0] * _DEPTH},
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "attn_layer_indices": [1, 3]},
    "falcon_h1": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64},
    "prophetnet": {"num_encoder_layers": _DEPTH, "num_decoder_layers": _DEPTH},
    "longcat_flash": {"num_layers": 2},
}
"""What single architectures need besides."""


def names() -> list[str]:
    """Return the architectures that transformers can make a causal language model of."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def encoder_decoder_names() -> list[str]:
    """Return the architectures that transformers can make an encoder-decoder model of text of."""
    return sorted(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)


def tiny_encoder_decoder(name: str) -> BaseModel:
    """Make a frozen random encoder-decoder model, always the same one.

    Args:
        name: Type of the model, e.g. `t5`.

    Raises:
        ValueError: It reads no text with an encoder, or stays too large although cut down.
    """
    config = tiny_config(name, is_decoder=False)
    if not config.is_encoder_decoder:
        raise ValueError("no encoder-decoder model")
    start = getattr(config, "decoder_start_token_id", None)
    config.decoder_start_token_id = start if start in range(_SIZES["vocab_size"]) else 0
    parameters = _checked_size(AutoModelForSeq2SeqLM, config)
    torch.manual_seed(0)
    model: Any = AutoModelForSeq2SeqLM.from_config(config).eval().requires_grad_(False)
    tokens = torch.arange(3, 20)[None]
    model(input_ids=tokens, decoder_input_ids=tokens)
    return _base(EncoderDecoder(model), parameters)


def tiny_config(name: str, **chosen: Any) -> Any:
    """Return an architecture's configuration with its sizes cut down.

    Args:
        name: Type of the model, e.g. `llama`.
        chosen: Fields that are given.
    """
    kind = CONFIG_MAPPING[name]
    default = kind()
    sizes = {
        **_sizes(default),
        **{field: value for field, value in chosen.items() if hasattr(default, field)},
    }
    for part in ("text_config", "vision_config", "audio_config"):
        if getattr(default, part, None) is not None:
            sizes[part] = _sizes(getattr(default, part))
    return kind(**{**sizes, **_OWN.get(name, {})})


def _sizes(default: Any) -> dict[str, Any]:
    """Return the sizes that a configuration has, cut down, under its own names for them."""
    own = dict(getattr(type(default), "attribute_map", {}))
    sizes = {name: value for name, value in _SIZES.items() if name not in own and _settable(default, name)}
    types = getattr(default, "layer_types", None)
    if types and _settable(default, own.get("layer_types", "layer_types")):
        sizes["layer_types"] = (list(dict.fromkeys(types)) * _DEPTH)[:_DEPTH]
    return {**sizes, **(_LATENT if "kv_lora_rank" in sizes else {})}


def _settable(config: Any, name: str) -> bool:
    with contextlib.suppress(Exception):  # attributes that differ between layers raise errors of their own
        mine = getattr(type(config), name, None)
        return hasattr(config, name) and not (isinstance(mine, property) and mine.fset is None)
    return name in vars(config)


def tiny_model(name: str) -> BaseModel:
    """Make a frozen random model, always the same one.

    Args:
        name: Type of the model, e.g. `llama`.

    Raises:
        ValueError: It stays too large although cut down.
    """
    config = tiny_config(name)
    parameters = _checked_size(AutoModelForCausalLM, config)
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    model(input_ids=torch.arange(3, 20)[None])
    return _base(model, parameters)


def _checked_size(kind: Any, config: Any) -> int:
    """Return the number of parameters; raises ValueError where there are too many."""
    with torch.device("meta"):
        parameters = int(sum(part.numel() for part in kind.from_config(config).parameters()))
    if parameters > _MOST_PARAMETERS:
        raise ValueError(f"{parameters} parameters")
    return parameters


def _base(model: Any, parameters: int) -> BaseModel:
    text = text_config(model.config)
    card = BaseModelCard("", text.hidden_size, text.num_hidden_layers, parameters, "float32", 0)
    tokenizer: Any = None
    return BaseModel(model=model, tokenizer=tokenizer, card=card)


def tiny_models(of: Sequence[str], make: Callable[[str], BaseModel]) -> Iterator[tuple[str, BaseModel | str]]:
    """Make models, each with its name; a sentence instead of those that cannot be made small.

    Args:
        of: Architectures.
        make: Makes the model of one.
    """
    for name in of:
        try:
            yield name, make(name)
        except Exception as error:  # each architecture checks its sizes in its own way
            yield name, " ".join(str(error).split())[:80] or type(error).__name__
