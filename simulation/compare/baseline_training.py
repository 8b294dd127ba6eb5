"""Training what is not a shift: rows through the whole model, as PEFT's users do.

What all prompts of a task begin with is run once per step instead of once per row, which halves the work
for prompts that list labels: exact up to rounding, and up to dropout, whose mask rows then share there.
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
"""Of every method; searches differ in what a method's own space names."""
LAST_RATE = 0.1
"""The rate falls linearly to this part of its peak, as for shifts."""


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
) -> None:
    """Fit `parameters`, which act in the base model, to `examples` with AdamW, shuffled by `order`.

    penalty: weight of the parameters' absolute values in the loss. A loss that is not finite ends it.
    """
    rng = random.Random(order)
    shared = shared_beginning(base, examples)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY)
    steps = epochs * math.ceil(len(examples) / batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - (1 - LAST_RATE) * step / steps)
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


def shared_beginning(base: BaseModel, examples: Sequence[Example]) -> int:
    """First tokens that all prompts have and that can be run apart; the last prompt token cannot."""
    if forgets(base, max(len(e.prompt) + len(e.target) for e in examples)):
        return 0
    prompts = [e.prompt for e in examples]
    return min(common_prefix(prompts), min(map(len, prompts)) - 1)


def step_loss(base: BaseModel, examples: Sequence[Example], shared: int) -> torch.Tensor:
    """Mean cross-entropy over the target tokens, in nats. shared: as of `shared_beginning`."""
    if shared < 2 or len(examples) < 2:
        return batch_loss(base.model, collate(examples, base.device))
    beginning = torch.tensor([examples[0].prompt[:shared]], device=base.device)
    cache = DynamicCache()
    base.model(input_ids=beginning, past_key_values=cache, use_cache=True, logits_to_keep=1)
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
    kept = predicted[:, columns]
    return F.cross_entropy(logits[kept].float(), batch.ids[:, 1:][:, columns][kept])
