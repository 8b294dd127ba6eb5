"""The oracle of training: one user, whole rows in every step, torch's own AdamW and clipping."""

import itertools
import random
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from fedperfit.edge.engine.examples import Example, position_arguments
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.injection import injected
from fedperfit.protocol.shift.shift import Shift


def slow_loss(
    base: BaseModel, shifts: Sequence[Shift], examples: Sequence[Example], *, additive: bool = False
) -> torch.Tensor:
    """Mean cross-entropy over the target tokens of rows padded on the right."""
    rows = [example.prompt + example.target for example in examples]
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    columns = torch.arange(width)
    attention = columns < torch.tensor([len(row) for row in rows])[:, None]
    prompt = columns < torch.tensor([len(example.prompt) for example in examples])[:, None]
    with injected(base.model, shifts, shifts[0].shape.positions.mask(prompt), additive=additive):
        logits = base.model(
            input_ids=ids,
            attention_mask=attention.long(),
            **position_arguments(base, attention),
            use_cache=False,
        ).logits
    predicted = (attention & ~prompt)[:, 1:]
    return F.cross_entropy(logits[:, :-1][predicted], ids[:, 1:][predicted])


def slow_fit(
    base: BaseModel,
    shift: Shift,
    examples: Sequence[Example],
    settings: TrainingSettings,
    *,
    frozen: Sequence[Shift] = (),
    additive: bool = False,
    decay_rate: bool = False,
    order: str,
    fewest: int = 1,
) -> float:
    """Train `shift` in place; the mean loss of the last epoch."""
    optimizer = torch.optim.AdamW(
        [
            {"params": [shift.R], "weight_decay": 0.0},
            {"params": [shift.W, shift.b], "weight_decay": settings.weight_decay},
        ],
        lr=settings.learning_rate,
    )
    rng = random.Random(order)
    ends = [*range(settings.batch_size, len(examples), settings.batch_size)]
    if ends and len(examples) - ends[-1] < min(fewest, settings.batch_size):
        ends.pop()
    steps, total = 0, settings.epochs * (len(ends) + 1)
    loss_sum = 0.0
    for _ in range(settings.epochs):
        shuffled = rng.sample(examples, len(examples))
        loss_sum = 0.0
        for start, end in itertools.pairwise([0, *ends, len(shuffled)]):
            batch = shuffled[start:end]
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (1 - 0.9 * steps / total * decay_rate)
            loss = slow_loss(base, [*frozen, shift], batch, additive=additive)
            optimizer.zero_grad()
            loss.backward()
            shift.project_gradient()
            torch.nn.utils.clip_grad_norm_(shift.parameters(), settings.clip_norm)
            optimizer.step()
            shift.retract()
            loss_sum += loss.item() * len(batch)
            steps += 1
    return loss_sum / len(examples)
