"""The plain path: every row by itself and whole, with nothing kept between passes.

Slow, and right wherever hooks see what the layers return: the fast path is compared with it once per model.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch.nn import functional as F

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.slab import BatchPositions, Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import changing
from fedperfit.protocol.shift.shift import widened


def shifted_whole(base: BaseModel, stack: Stack, prompt: int) -> AbstractContextManager[None]:
    """Inside the block the shifts act in every pass of one row that begins with its prompt.

    Args:
        base: the frozen model.
        stack: shifts of one user.
        prompt: number of the row's first tokens that are the prompt.
    """
    if not stack.layers:
        return changing(base.model, [], lambda layer, hidden: hidden)
    mask = stack.parts[0].shape.positions.mask(torch.ones(1, prompt))
    at = BatchPositions.of(mask, [0], base.device)
    return changing(base.model, stack.layers, lambda layer, hidden: at.change(stack, layer, hidden))


def target_logits(base: BaseModel, stack: Stack, example: Example) -> torch.Tensor:
    """Logits (target tokens, vocabulary) that predict the target after its prompt.

    Args:
        base: the frozen model.
        stack: shifts of one user.
        example: prompt and target as token ids.
    """
    prompt = len(example.prompt)
    ids = torch.tensor([[*example.prompt, *example.target[:-1]]], device=base.device)
    with shifted_whole(base, stack, prompt):
        logits: torch.Tensor = base.model(input_ids=ids, use_cache=False).logits
    return logits[0, prompt - 1 :]


def plain_losses(base: BaseModel, stack: Stack, rows: Sequence[tuple[int, Example]]) -> torch.Tensor:
    """Mean cross-entropy (users,) over each user's target tokens, in nats.

    Args:
        base: the frozen model.
        stack: shifts of all users.
        rows: user and example of each row; users 0, 1, … without gaps.
    """
    users = range(1 + max(user for user, _ in rows))
    means = []
    for user in users:
        mine = [example for owner, example in rows if owner == user]
        logits = torch.cat([target_logits(base, stack.some([user]), example) for example in mine])
        targets = [token for example in mine for token in example.target]
        means.append(F.cross_entropy(widened(logits), torch.tensor(targets, device=base.device)))
    return torch.stack(means)


def plain_scores(
    base: BaseModel, stack: Stack, prompt: tuple[int, ...], labels: Sequence[tuple[int, ...]]
) -> torch.Tensor:
    """Log-likelihoods (labels,) of labels after a prompt.

    Args:
        base: the frozen model.
        stack: shifts of one user.
        prompt: token ids.
        labels: token ids of each label.
    """
    scores = []
    for label in labels:
        logs = target_logits(base, stack, Example(prompt, label)).float().log_softmax(-1)
        scores.append(logs.gather(1, torch.tensor(label, device=base.device)[:, None]).sum())
    return torch.stack(scores)
