"""Base model of the benchmark: a Llama with random weights, or any base model by name."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedperfit.protocol.system.errors import InputError

if TYPE_CHECKING:
    from fedperfit.protocol.model.base_model import BaseModel

_TOKENS = ("<pad>", "<s>", "</s>")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Description of a base model; training time does not depend on the values of its weights.

    Raises:
        InputError: A size or the dtype is not possible.
    """

    name: str = ""
    """Folder or hub name of a base model; empty for random weights of the sizes below."""
    layers: int = 12
    hidden_size: int = 512
    heads: int = 8
    """Attention heads, each of an even size."""
    vocabulary: int = 8192
    """Tokens, special ones included."""
    device: str = "auto"
    dtype: str = "auto"
    """Type of the weights: auto (bf16 on CUDA, fp32 on a CPU), float32 or bfloat16."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "hidden_size", "heads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.hidden_size % (2 * self.heads):
            raise InputError(f"heads={self.heads}: must divide hidden_size={self.hidden_size} evenly")
        if self.vocabulary <= len(_TOKENS):
            raise InputError(f"vocabulary={self.vocabulary}: must be more than {len(_TOKENS)}")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise InputError(f"dtype={self.dtype!r}: expected auto, float32 or bfloat16")


def make_base(spec: ModelSpec) -> "BaseModel":
    """Return the frozen model in eval mode.

    Raises:
        InputError: A named model cannot be loaded.
    """
    from fedperfit.protocol.model.base_model import BaseModel, BaseModelCard, load

    if spec.name:
        return load(spec.name, device=spec.device, dtype=spec.dtype)

    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    device = spec.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = spec.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    config = LlamaConfig(
        num_hidden_layers=spec.layers,
        hidden_size=spec.hidden_size,
        num_attention_heads=spec.heads,
        intermediate_size=32 * round(spec.hidden_size * 8 / 3 / 32),
        vocab_size=spec.vocabulary,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(spec.seed)
        model = LlamaForCausalLM._from_config(config, dtype=getattr(torch, dtype))
    model.requires_grad_(False)
    words = {token: place for place, token in enumerate(_TOKENS)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token=_TOKENS[0])),
        **dict(zip(("pad_token", "bos_token", "eos_token"), _TOKENS, strict=True)),
    )
    card = BaseModelCard(
        fingerprint=f"random-{spec.layers}x{spec.hidden_size}-{spec.seed}",
        hidden_size=spec.hidden_size,
        layers=spec.layers,
        parameters=model.num_parameters(),
        dtype=dtype,
        lora_qv=8 * spec.layers * 4 * spec.hidden_size,
    )
    return BaseModel(model=model.eval(), tokenizer=tokenizer, card=card)
