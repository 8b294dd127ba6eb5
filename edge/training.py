"""Fitting a shift to a person's pairs; both stages use this."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from edge.contexts import Contexts, build_contexts, context_length
from edge.examples import Example, collate, places
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
    positions = shift.shape.positions
    contexts = build_contexts(base, [example.prompt for example in examples], positions)
    rng = random.Random(order)
    batches = -(-len(examples) // settings.batch_size)
    steps, total = 0, settings.epochs * batches
    loss_sum = 0.0
    for _ in range(settings.epochs):
        shuffled = rng.sample(range(len(examples)), len(examples))
        loss_sum = 0.0
        for start in range(0, len(shuffled), settings.batch_size):
            chosen = shuffled[start : start + settings.batch_size]
            if decay_rate:
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * (1 - 0.9 * steps / total)
            loss = batch_loss(
                base,
                [*beneath, shift],
                [examples[row] for row in chosen],
                chosen,
                contexts,
                additive=additive,
            )
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


def batch_loss(
    base: BaseModel,
    shifts: Sequence[Shift],
    examples: Sequence[Example],
    rows: Sequence[int] = (),
    contexts: Contexts | None = None,
    *,
    additive: bool = False,
) -> torch.Tensor:
    """Mean cross-entropy over the target tokens of a batch, in nats.

    With `contexts`, in which the examples are `rows`, only what the shifts can touch is run.
    """
    positions = shifts[0].shape.positions
    skipped = [0 if contexts is None else context_length(e.prompt, positions) for e in examples]
    batch = collate(examples, base.device, skipped)
    predicted = batch.target[:, 1:]
    columns = predicted.any(dim=0).nonzero().flatten()
    inputs: dict[str, Any] = {"input_ids": batch.ids, "attention_mask": batch.attention.long()}
    if contexts is not None:
        cache, filled = contexts.gather(rows)
        attention = torch.cat([filled, batch.attention], dim=1)
        inputs |= {"attention_mask": attention.long(), "past_key_values": cache}
        inputs |= places(base, attention, last=batch.ids.shape[1])
    with injected(base.model, shifts, positions.mask(batch.prompt), additive=additive):
        logits = base.model(**inputs, use_cache=contexts is not None, logits_to_keep=columns).logits
    kept = predicted[:, columns]
    return F.cross_entropy(logits[kept].float(), batch.ids[:, 1:][:, columns][kept])
