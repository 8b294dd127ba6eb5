"""Training what is not a shift: whole rows through the whole model, as PEFT's users do."""

import math
import random
from collections.abc import Sequence
from typing import Any

import torch

from edge.examples import Example
from simulation.benchmark.rows import batch_loss, collate

WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
"""Of every method; searches differ in what a method's own space names."""
LAST_RATE = 0.1
"""The rate falls linearly to this part of its peak, as for shifts."""


def train(
    model: Any,
    parameters: Sequence[torch.nn.Parameter],
    examples: Sequence[Example],
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    order: str,
    penalty: float = 0.0,
) -> None:
    """Fit `parameters` of `model` to `examples` with AdamW, shuffled anew in each epoch by `order`.

    penalty: weight of the parameters' absolute values in the loss. A loss that is not finite ends it.
    """
    rng = random.Random(order)
    device = next(iter(parameters)).device
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY)
    steps = epochs * math.ceil(len(examples) / batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - (1 - LAST_RATE) * step / steps)
    for _ in range(epochs):
        rows = rng.sample(range(len(examples)), len(examples))
        for start in range(0, len(rows), batch_size):
            loss = batch_loss(model, collate([examples[n] for n in rows[start : start + batch_size]], device))
            if penalty:
                loss = loss + penalty * torch.stack([p.abs().sum() for p in parameters]).sum()
            if not loss.isfinite():
                return
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            optimizer.step()
            schedule.step()
