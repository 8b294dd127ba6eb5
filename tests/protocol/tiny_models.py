"""Random language models of each architecture, small enough for plain loops."""

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
)

VOCABULARY = 40
PAD, END = 0, 1
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
    "bos_token_id": END,
    "eos_token_id": END,
    "initializer_range": 0.3,
}
_GROUPED = {"num_key_value_heads": 2}
CONFIGS = {
    "llama": lambda: LlamaConfig(**_COMMON, **_GROUPED),
    "gpt2": lambda: GPT2Config(
        **{k: v for k, v in _COMMON.items() if k != "intermediate_size"},
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**_COMMON),
    "qwen2": lambda: Qwen2Config(**_COMMON, **_GROUPED),
    "mistral": lambda: MistralConfig(**_COMMON, **_GROUPED, sliding_window=None),
    "gemma": lambda: GemmaConfig(**_COMMON, num_key_value_heads=1, head_dim=8),
    "gemma3": lambda: Gemma3TextConfig(**_COMMON, **_GROUPED, head_dim=8, sliding_window=32),
}


def tiny_model(name: str) -> PreTrainedModel:
    """A frozen random model of architecture `name`, always the same one."""
    torch.manual_seed(1)
    config = CONFIGS[name]()
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval().requires_grad_(False)
