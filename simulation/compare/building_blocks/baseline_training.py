"""Training of parameters that are no shifts: rows through the whole model, as PEFT's users do.

The common first tokens of all prompts of a task are run once per step instead of once per row, which halves
the work for prompts that list labels: exact up to rounding, and up to dropout, whose mask rows then share
there.
"""

import math
import random
from collections.abc import Sequence

import torch
from torch.nn import functional as F
from transformers import DynamicCache

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.prefix import common_prefix, forgets, starting_with, whole_layers
from fedperfit.edge.engine.rows import batch_loss, collate
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import decoder_layers

WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
"""Largest norm of a gradient, of every method; the search varies only what a method's own space names."""
LAST_RATE = 0.1
"""Part of the peak rate at the last step; the rate falls linearly, as for shifts."""


def train(
    base: BaseModel,
    parameters: Sequence[torch.nn.Parameter],
    examples: Sequence[Example],
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    order: str,
    penalty: float = 0.0,
    last_rate: float = LAST_RATE,
) -> None:
    """Fit `parameters`, which act in the base model, to `examples` with AdamW.

    A loss that is not finite ends the training.

    Args:
        base: The base model.
        parameters: Parameters to fit, in place.
        examples: Training examples.
        epochs: Passes over the examples.
        learning_rate: Peak learning rate.
        batch_size: Examples per step.
        order: Seed of the shuffling.
        penalty: Weight of the parameters' absolute values in the loss.
        last_rate: Part of the peak rate at the last step; 1 keeps the rate constant.
    """
    rng = random.Random(order)
    shared = shared_prefix(base, examples)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY)
    steps = epochs * math.ceil(len(examples) / batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - (1 - last_rate) * step / steps)
    for _ in range(epochs):
        rows = rng.sample(range(len(examples)), len(examples))
        for start in range(0, len(rows), batch_size):
            loss = step_loss(base, [examples[n] for n in rows[start : start + batch_size]], shared)
            if penalty:
                loss = loss + penalty * torch.stack([p.abs().sum() for p in parameters]).sum()
            if not loss.isfinite():
                return
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            optimizer.step()
            schedule.step()


def shared_prefix(base: BaseModel, examples: Sequence[Example]) -> int:
    """Count the first tokens that all prompts have and that can be run apart; the last prompt token cannot.

    Args:
        base: The base model; where its attention forgets, nothing can be run apart.
        examples: Training examples.
    """
    if forgets(base, max(len(e.prompt) + len(e.target) for e in examples)):
        return 0
    prompts = [e.prompt for e in examples]
    return min(common_prefix(prompts), min(map(len, prompts)) - 1)


def step_loss(base: BaseModel, examples: Sequence[Example], shared: int) -> torch.Tensor:
    """Compute the mean cross-entropy over the target tokens, in nats.

    Args:
        base: The base model.
        examples: Examples of one step.
        shared: Common first tokens, as counted by `shared_prefix` on these or more examples.
    """
    if shared < 2 or len(examples) < 2:
        return batch_loss(base.model, collate(examples, base.device))
    prefix = torch.tensor([examples[0].prompt[:shared]], device=base.device)
    cache = DynamicCache()
    base.model(input_ids=prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
    layers = whole_layers(cache, range(len(decoder_layers(base.model))), shared)
    if not layers:  # sliding windows, recurrent layers
        return batch_loss(base.model, collate(examples, base.device))
    batch = collate([Example(e.prompt[shared:], e.target) for e in examples], base.device)
    predicted = batch.target[:, 1:]
    columns = predicted.any(dim=0).nonzero().flatten()
    before = torch.ones(len(examples), shared, dtype=torch.long, device=base.device)
    logits = base.model(
        input_ids=batch.ids[:, :-1],
        attention_mask=torch.cat([before, batch.attention[:, :-1].long()], dim=1),
        past_key_values=starting_with(base, {n: [part] for n, part in layers.items()}),
        use_cache=True,
        logits_to_keep=columns,
    ).logits
    targets = predicted[:, columns]
    return F.cross_entropy(logits[targets].float(), batch.ids[:, 1:][:, columns][targets])
