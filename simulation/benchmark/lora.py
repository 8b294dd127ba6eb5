"""PEFT's LoRA as OPPU (Tan et al., 2024) trains its users' stage, at its best.

The loop is lean and computes logits at target columns only. r = 8, alpha = 8, dropout .05 on q and v, AdamW
1e-4 with weight decay 1e-2, gradient clipped at 0.3, as in OPPU's code. The model is wrapped once; per user
only the adapter's weights start anew.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.rows import batch_loss, collate
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.simulation.benchmark.workload import Workload, batches
from fedperfit.simulation.optional import required

RANK = 8
DROPOUT = 0.05
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 1e-2
CLIP_NORM = 0.3


def lora(base: BaseModel, users: Iterable[Sequence[Example]], workload: Workload) -> int:
    """Fit an adapter per user.

    Args:
        base: The frozen base model, as before afterwards.
        users: Each user's examples.
        workload: Epochs, batch size and seed.

    Returns:
        Bytes of one adapter.

    Raises:
        InputError: peft is not installed.
    """
    with adapted(base, checkpointing=False) as model:
        return _fit_users(base, model, users, workload)


def lora_checkpointing(base: BaseModel, users: Iterable[Sequence[Example]], workload: Workload) -> int:
    """Fit an adapter per user with gradient checkpointing, as OPPU is released.

    Args:
        base: The frozen base model, as before afterwards.
        users: Each user's examples.
        workload: Epochs, batch size and seed.

    Returns:
        Bytes of one adapter.

    Raises:
        InputError: peft is not installed.
    """
    with adapted(base, checkpointing=True) as model:
        return _fit_users(base, model, users, workload)


@contextmanager
def adapted(base: BaseModel, *, checkpointing: bool) -> Iterator[Any]:
    """Give the base model LoRA layers in train mode within the block; afterwards it is as before.

    Args:
        base: The base model.
        checkpointing: Switch gradient checkpointing on.

    Raises:
        InputError: peft is not installed.
    """
    peft = required("peft")
    config = peft.LoraConfig(
        r=RANK,
        lora_alpha=RANK,
        lora_dropout=DROPOUT,
        target_modules=["q_proj", "v_proj"],
        bias="none",
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(base.model, config)
    if checkpointing:
        base.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()  # dropout; transformers also checkpoints in train mode only
    try:
        yield model
    finally:
        if checkpointing:
            base.model.gradient_checkpointing_disable()
        model.unload()
        base.model.eval()


def _fit_users(base: BaseModel, model: Any, users: Iterable[Sequence[Example]], workload: Workload) -> int:
    torch.manual_seed(workload.settings.seed)
    layers = [module for module in model.modules() if hasattr(module, "reset_lora_parameters")]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for user, examples in enumerate(users):
        for layer in layers:
            layer.reset_lora_parameters("default", init_lora_weights=True)
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
        for batch in batches(examples, workload, user):
            loss = batch_loss(model, collate(batch, base.device))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM)
            optimizer.step()
    return sum(parameter.numel() * parameter.itemsize for parameter in trained)
