"""PEFT's LoRA around the frozen model: trained, kept as bytes, put back to answer."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from safetensors.torch import load, save

from fedperfit.edge.agent.history import History
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Pair
from fedperfit.simulation.compare.baseline_training import train
from fedperfit.simulation.compare.context import Context, Values, people_digest
from fedperfit.simulation.optional import required

RANKS = (4, 8, 16)
DROPOUT = 0.05
"""OPPU's."""
_PARTS = {
    "q_proj": ("q_proj", "k_proj", "v_proj"),
    "c_attn": ("c_attn",),
    "query_key_value": ("query_key_value",),
    "qkv_proj": ("qkv_proj",),
}
"""A projection that tells the architecture, and where LoRA goes in it."""

Adapter = dict[str, torch.Tensor]
"""A LoRA's tensors by name."""


def targets(base: BaseModel, *, collective: bool) -> list[str]:
    """q, k and v for the task's LoRA, q and v for a user's (OPPU); the fused projection where they are one.

    Raises InputError for an architecture with neither.
    """
    names = {name.rpartition(".")[2] for name, _ in base.model.named_modules()}
    for sign, parts in _PARTS.items():
        if sign in names:
            return [part for part in parts if collective or part != "k_proj"]
    raise InputError(f"{type(base.model).__name__}: no attention projections that LoRA is known for")


@contextmanager
def _wrapped(base: BaseModel, rank: int, modules: Sequence[str]) -> Iterator[Any]:
    """Inside the block the base model has fresh LoRA layers; afterwards it is as before."""
    peft = required("peft")
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=DROPOUT,
        target_modules=list(modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # peft's own use
        model = peft.get_peft_model(base.model, config)
    try:
        yield model
    finally:
        model.unload()
        base.model.eval()


def fit_adapter(
    context: Context,
    pairs: Sequence[Pair],
    *,
    rank: int,
    modules: Sequence[str],
    epochs: int,
    learning_rate: float,
    name: str,
) -> Adapter:
    """A LoRA fitted to `pairs`; `name` seeds its start, dropout and the order of items."""
    peft = required("peft")
    with torch.random.fork_rng():
        torch.manual_seed(context.number(name, "lora"))
        with _wrapped(context.base, rank, modules) as model:
            model.train()
            train(
                context.base,
                [parameter for parameter in model.parameters() if parameter.requires_grad],
                context.encode(pairs),
                epochs=epochs,
                learning_rate=learning_rate,
                batch_size=context.batch_size,
                order=f"{context.seed}/{name}",
            )
            tensors: Adapter = peft.get_peft_model_state_dict(model)
            return {key: tensor.detach().clone() for key, tensor in tensors.items()}


def answer(
    context: Context, adapter: Adapter | None, prompts: Sequence[str], *, rank: int, modules: Sequence[str]
) -> list[str]:
    """Answers of the model with `adapter`, or of the bare one."""
    if adapter is None:
        return context.answer(prompts)
    with _wrapped(context.base, rank, modules) as model:
        required("peft").set_peft_model_state_dict(model, adapter)
        model.eval()
        return context.answer(prompts)


def merged(context: Context, adapter: Adapter, *, rank: int, modules: Sequence[str]) -> Context:
    """A bench whose base model has `adapter` in its weights; the bench's own stays as it is."""
    base = context.base
    copied = BaseModel(model=copy.deepcopy(base.model), tokenizer=base.tokenizer, card=base.card)
    peft = required("peft")
    config = peft.LoraConfig(
        r=rank, lora_alpha=rank, target_modules=list(modules), bias="none", task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        model = peft.get_peft_model(copied.model, config)
    peft.set_peft_model_state_dict(model, adapter)
    whole = model.merge_and_unload()
    whole.requires_grad_(False)
    return context.on(BaseModel(model=whole.eval(), tokenizer=base.tokenizer, card=base.card))


def collective_adapter(
    context: Context, others: Sequence[History], values: Values, pairs: Sequence[Pair], about: Any
) -> tuple[Adapter, int]:
    """The task's LoRA trained on the others' `pairs`, made once for all that share it; and its bytes."""
    modules = targets(context.base, collective=True)
    key = [dict(values), people_digest(others), len(pairs), context.seed, about]

    def make() -> bytes:
        return save(
            fit_adapter(
                context,
                context.sampled(pairs),
                rank=values["rank"],
                modules=modules,
                epochs=values["epochs"],
                learning_rate=values["learning-rate"],
                name="collective",
            )
        )

    data = context.keep("collective/lora", key, make)
    return load(data), len(data)
