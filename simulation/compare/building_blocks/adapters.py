"""PEFT's LoRA (Hu et al., 2022) around the frozen model: trained, kept as bytes, put back to answer."""

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
from fedperfit.protocol.tasks import Pair, Prompt
from fedperfit.simulation.compare.building_blocks.baseline_training import train
from fedperfit.simulation.compare.context import MethodContext, Values, people_digest
from fedperfit.simulation.optional import required

RANKS = (4, 8, 16)
"""Ranks that the search draws from."""
DROPOUT = 0.05
"""Dropout on the input of LoRA layers, as in OPPU's code."""
_PARTS = {
    "q_proj": ("q_proj", "k_proj", "v_proj"),
    "c_attn": ("c_attn",),
    "query_key_value": ("query_key_value",),
    "qkv_proj": ("qkv_proj",),
    "q": ("q", "k", "v"),
}
"""Projections that LoRA is added to, by the projection that tells the architecture."""

Adapter = dict[str, torch.Tensor]
"""Tensors of a LoRA by name."""


def targets(base: BaseModel, *, collective: bool) -> list[str]:
    """Name the projections that LoRA is added to, as in OPPU.

    Args:
        base: The base model.
        collective: For the task's LoRA (q, k and v) instead of a user's (q and v).

    Returns:
        Names of modules; a fused projection stands for all its parts.

    Raises:
        InputError: The architecture has projections with other names.
    """
    names = {name.rpartition(".")[2] for name, _ in base.model.named_modules()}
    for sign, parts in _PARTS.items():
        if sign in names:
            return [part for part in parts if collective or part not in ("k", "k_proj")]
    raise InputError(f"{base.kind}: no attention projections with a name that LoRA knows")


@contextmanager
def wrapped(base: BaseModel, rank: int, modules: Sequence[str], *, dropout: float = DROPOUT) -> Iterator[Any]:
    """Give the base model fresh LoRA layers within the block; afterwards it is as before.

    Args:
        base: The base model.
        rank: Rank of the LoRA, which is also its alpha.
        modules: Projections that LoRA is added to.
        dropout: Dropout on the input of LoRA layers.
    """
    peft = required("peft")
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=dropout,
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
    context: MethodContext,
    pairs: Sequence[Pair],
    *,
    rank: int,
    modules: Sequence[str],
    epochs: int,
    learning_rate: float,
    name: str,
) -> Adapter:
    """Fit a LoRA to `pairs`.

    Args:
        context: Model, batch size and seed.
        pairs: Training pairs.
        rank: Rank of the LoRA, which is also its alpha.
        modules: Projections that LoRA is added to.
        epochs: Passes over the pairs.
        learning_rate: Peak learning rate.
        name: Name that seeds the start, the dropout and the order of items.
    """
    peft = required("peft")
    with torch.random.fork_rng():
        torch.manual_seed(context.number(name, "lora"))
        with wrapped(context.base, rank, modules) as model:
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
    context: MethodContext,
    adapter: Adapter | None,
    prompts: Sequence[Prompt],
    *,
    rank: int,
    modules: Sequence[str],
) -> list[str]:
    """Answer `prompts` with the adapter in the model.

    Args:
        context: Model and task.
        adapter: The LoRA, or None for the bare model.
        prompts: Whole prompts.
        rank: Rank of the LoRA.
        modules: Projections that it was added to.
    """
    if adapter is None:
        return context.answer(prompts)
    with wrapped(context.base, rank, modules) as model:
        required("peft").set_peft_model_state_dict(model, adapter)
        model.eval()
        return context.answer(prompts)


def merged(context: MethodContext, adapter: Adapter, *, rank: int, modules: Sequence[str]) -> MethodContext:
    """Return a context whose base model has `adapter` in its weights; the given context stays as it is.

    Args:
        context: Model and task.
        adapter: The LoRA.
        rank: Rank of the LoRA.
        modules: Projections that it was added to.
    """
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
    context: MethodContext, others: Sequence[History], values: Values, pairs: Sequence[Pair], about: Any
) -> tuple[Adapter, int]:
    """Train the task's LoRA once for all methods that share it.

    Args:
        context: Model, seed, and where the LoRA is kept.
        others: Users whose pairs are trained on.
        values: Hyper-parameters `rank`, `epochs` and `learning-rate`.
        pairs: Training pairs of the others.
        about: What else the pairs depend on, as JSON values.

    Returns:
        The LoRA and its bytes.
    """
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
