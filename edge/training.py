"""Fitting a shift to a person's pairs; both stages use this."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from edge.examples import Batch, Example, collate
from protocol.base_model import BaseModel
from protocol.errors import InputError
from protocol.injection import injected
from protocol.settings import TrainingSettings
from protocol.shift import Shift


@dataclass(frozen=True)
class Fit:
    """What a training run did."""

    items: int
    """Examples in an epoch."""
    steps: int
    loss: float
    """Mean loss per example over the last epoch, in nats per target token."""


def fit(
    base: BaseModel,
    shift: Shift,
    examples: Sequence[Example],
    settings: TrainingSettings,
    *,
    beneath: Sequence[Shift] = (),
    additive: bool = False,
    decay_rate: bool = False,
    order: str,
) -> Fit:
    """Train `shift` in place, on top of the frozen shifts `beneath`.

    AdamW with no weight decay on R, whose gradient is kept tangent and whose rows are made
    orthonormal again after every step. `order` seeds the shuffling; `decay_rate` lets the rate
    fall linearly to a tenth. Raises InputError when there are no examples or the loss is not finite.
    """
    if not examples:
        raise InputError("there is no history to train on")
    shift.to(base.device)
    optimizer = torch.optim.AdamW(
        [
            {"params": [shift.R], "weight_decay": 0.0},
            {"params": [shift.W, shift.b], "weight_decay": settings.weight_decay},
        ],
        lr=settings.learning_rate,
    )
    rng = random.Random(order)
    batches = -(-len(examples) // settings.batch_size)
    steps, total = 0, settings.epochs * batches
    loss_sum = 0.0
    for _ in range(settings.epochs):
        shuffled = rng.sample(list(examples), len(examples))
        loss_sum = 0.0
        for start in range(0, len(shuffled), settings.batch_size):
            chosen = shuffled[start : start + settings.batch_size]
            if decay_rate:
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * (1 - 0.9 * steps / total)
            batch = collate(chosen, base.device)
            loss = target_loss(base, [*beneath, shift], batch, additive=additive)
            if not torch.isfinite(loss):
                raise InputError(f"the loss is {loss.item()}: the learning rate may be too high")
            optimizer.zero_grad()
            torch.autograd.backward(loss, inputs=list(shift.parameters()))
            shift.project_gradient()
            torch.nn.utils.clip_grad_norm_(shift.parameters(), settings.clip_norm)
            optimizer.step()
            shift.retract()
            loss_sum += loss.item() * len(chosen)
            steps += 1
    return Fit(items=len(examples), steps=steps, loss=loss_sum / len(examples))


def target_loss(
    base: BaseModel, shifts: Sequence[Shift], batch: Batch, *, additive: bool = False
) -> torch.Tensor:
    """Mean cross-entropy over the target tokens of a batch, in nats; the output layer sees only those."""
    mask = shifts[0].shape.positions.mask(batch.prompt)
    predicted = batch.target[:, 1:]
    columns = predicted.any(dim=0).nonzero().flatten()
    with injected(base.model, shifts, mask, additive=additive):
        logits = base.model(
            input_ids=batch.ids,
            attention_mask=batch.attention.long(),
            use_cache=False,
            logits_to_keep=columns,
        ).logits
    kept = predicted[:, columns]
    return F.cross_entropy(logits[kept].float(), batch.ids[:, 1:][:, columns][kept])
