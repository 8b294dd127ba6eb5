"""Our own training as contenders: with the engine, and along the plain path that recomputes everything."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from fedperfit.edge.agent.side_by_side import cohorts
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.rows import batch_loss, collate
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.injection import injected
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.simulation.benchmark.workload import Workload, batches, order


def engine(base: BaseModel, users: Iterable[Sequence[Example]], workload: Workload) -> int:
    """Fit personal shifts above a collective one, side by side.

    Args:
        base: The frozen base model.
        users: Each user's examples.
        workload: Settings of the training.

    Returns:
        Bytes of one personal shift.
    """
    settings = workload.settings
    training = settings.personal_training()
    cache = ItemCache(base)
    jobs = (
        FitJob(_personal(base, workload, user), examples, order(workload, user))
        for user, examples in enumerate(users)
    )
    collective = _collective(base, workload)
    for cohort in cohorts(jobs, training, cache):
        fit(cohort, training, cache, frozen=[collective], additive=settings.additive, decay_rate=True)
        cache.clear()  # each user is fitted once
    return _bytes(base, workload)


def plain(base: BaseModel, users: Iterable[Sequence[Example]], workload: Workload) -> int:
    """Fit personal shifts above a collective one with a hook and torch's AdamW.

    Every step runs whole rows through the whole model.

    Args:
        base: The frozen base model.
        users: Each user's examples.
        workload: Settings of the training.

    Returns:
        Bytes of one personal shift.
    """
    settings = workload.settings
    collective = _collective(base, workload)
    for user, examples in enumerate(users):
        shift = _personal(base, workload, user).to(base.device)
        optimizer = torch.optim.AdamW(
            [
                {"params": [shift.R], "weight_decay": 0.0},
                {"params": [shift.W, shift.b], "weight_decay": settings.weight_decay},
            ],
            lr=settings.personal_learning_rate,
        )
        for step, chosen in enumerate(batches(examples, workload, user)):
            for group in optimizer.param_groups:
                group["lr"] = settings.personal_learning_rate * (1 - 0.9 * step / workload.steps)
            batch = collate(chosen, base.device)
            mask = shift.shape.positions.mask(batch.prompt[:, :-1])
            with injected(base.model, [collective, shift], mask, additive=settings.additive):
                loss = batch_loss(base.model, batch)
            optimizer.zero_grad()
            torch.autograd.backward(loss, inputs=list(shift.parameters()))
            shift.project_gradient()
            torch.nn.utils.clip_grad_norm_(shift.parameters(), settings.clip_norm)
            optimizer.step()
            shift.retract()
    return _bytes(base, workload)


def _collective(base: BaseModel, workload: Workload) -> Shift:
    shape = workload.settings.shape(base.card)
    shift = Shift.identity(shape, seed=workload.settings.seed)
    return shift.requires_grad_(False).to(base.device)


def _personal(base: BaseModel, workload: Workload, user: int) -> PersonalShift:
    return PersonalShift.start(_shape(base, workload), seed=workload.settings.seed + user)


def _shape(base: BaseModel, workload: Workload) -> ShiftShape:
    return replace(workload.settings.shape(base.card), rank=workload.settings.personal().rank)


def _bytes(base: BaseModel, workload: Workload) -> int:
    return 4 * _shape(base, workload).parameters
