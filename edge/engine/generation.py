"""The rule by which text is generated: from the settings alone, whatever lies in the model's folder."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from transformers import GenerationConfig

from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.config import text_config
from fedperfit.protocol.system.errors import InputError

_SEED_BITS = 63


_LOWEST = 1e-6
"""Temperatures up to this are greedy: logits divided by them would overflow."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Rule by which the next token is chosen."""

    temperature: float = 0.0
    """Divisor of the logits, 0 to 10; 0 takes the likeliest token."""
    top_p: float = 0.0
    """Probability that the sampled tokens make up together, 0 to 1; 0 samples from all tokens."""
    seed: int | None = None
    """Seed of the random numbers; None draws it from the operating system. Of no effect at temperature 0."""
    max_new_tokens: int = 0
    """Most tokens to generate; 0 for what an answer of the task may have, or the context has room for."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 10:
            raise InputError(f"temperature={self.temperature}: must be in 0..10")
        if not 0 <= self.top_p <= 1:
            raise InputError(f"top_p={self.top_p}: must be in 0..1")

    def within(self, most: int | None) -> "Sampling":
        """Return this rule with a default for the most tokens; None leaves it to the context's room."""
        return self if most is None or self.max_new_tokens else replace(self, max_new_tokens=most)


GREEDY = Sampling()
"""The likeliest token, always."""


def ends(base: BaseModel) -> list[int]:
    """List the tokens that end a text: the tokenizer's, the chat template's, and those in config.json.

    Args:
        base: the frozen model.
    """
    config = base.model.config
    stated = [getattr(one, "eos_token_id", None) for one in (config, text_config(config))]
    several = [one if isinstance(one, list) else [one] for one in stated]
    turn = [base.end_of_turn] if base.tokenizer.chat_template else []
    words = base.model.get_input_embeddings().num_embeddings
    listed = [int(token) for one in several for token in one if token is not None]
    return list(dict.fromkeys([base.end_of_text, *turn, *(token for token in listed if 0 <= token < words)]))


def generation_config(
    base: BaseModel, most: int, sampling: Sampling = GREEDY, *, cached: bool = True
) -> GenerationConfig:
    """Make the configuration of one generation.

    Args:
        base: the frozen model, loaded without its folder's generation_config.json.
        most: most tokens to generate, at least 1.
        sampling: how the next token is chosen.
        cached: whether keys and values are kept from pass to pass.
    """
    chosen: dict[str, object] = {"do_sample": False}
    if sampling.temperature > _LOWEST:
        chosen = {
            **{"do_sample": True, "top_k": 0},
            **{"temperature": sampling.temperature, "top_p": sampling.top_p or 1.0},
        }
    return GenerationConfig(
        max_new_tokens=most,
        num_beams=1,
        use_cache=cached,
        eos_token_id=ends(base),
        pad_token_id=base.end_of_text,
        **chosen,
    )


@contextmanager
def drawing(base: BaseModel, sampling: Sampling) -> Iterator[None]:
    """Inside the block random numbers follow the seed, or are drawn anew; outside nothing of it is seen.

    Args:
        base: model whose device draws.
        sampling: holds the seed, if one was given.
    """
    devices = [base.device] if base.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(secrets.randbits(_SEED_BITS) if sampling.seed is None else sampling.seed)
        yield
