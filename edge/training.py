"""Fitting shifts to people's pairs; both stages use this, for one person or many side by side."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from edge.examples import Example
from edge.items import ItemCache, Kind, Plan, context_length
from edge.prefix import common_prefix
from edge.scoring import Sums
from edge.slab import AdamW, Slab, Stack
from edge.step import Row, step_losses
from protocol.errors import InputError
from protocol.layers import decoder_layers
from protocol.settings import TrainingSettings
from protocol.shift import Shift

_TOKENS = (2048, 16384)
"""Tokens a step of a cohort runs at most, on a CPU and on CUDA: enough to keep the device busy."""


@dataclass(frozen=True)
class Job:
    """One user's training."""

    shift: Shift
    """Trained in place."""
    examples: Sequence[Example]
    order: str
    """Seeds the shuffling."""


@dataclass(frozen=True)
class Fit:
    """What a training run did."""

    items: int
    """Examples in an epoch."""
    steps: int
    loss: float
    """Mean loss per example over the last epoch, in nats per target token; NaN when training failed."""

    @property
    def metrics(self) -> Sums:
        """The loss as a sum over items."""
        return {"loss": self.loss * self.items}


def fit(
    jobs: Sequence[Job],
    settings: TrainingSettings,
    cache: ItemCache,
    *,
    beneath: Sequence[Shift] = (),
    additive: bool = False,
    decay_rate: bool = False,
    beginning: Sequence[int] | None = None,
) -> list[Fit]:
    """Train the jobs' shifts in place, side by side, on top of the frozen shifts `beneath`.

    Each user takes its own steps: own batches, loss, clipping and rate, so that it ends where it would
    alone. AdamW with no weight decay on R, whose gradient is kept tangent and whose rows are made
    orthonormal again after every step. A user whose loss or gradient is not finite is left at that step.

    decay_rate: let the rate fall linearly to a tenth. beginning: see `ItemCache.prepare`.
    Raises InputError when a job has no examples, or the shifts differ in shape or can change nothing.
    """
    if any(not job.examples for job in jobs):
        raise InputError("there is no history to train on")
    if any(job.shift.shape != jobs[0].shift.shape for job in jobs):
        raise InputError("users trained together need shifts of one shape")
    base = cache.base
    jobs[0].shift.shape.check_effect(len(decoder_layers(base.model)))
    jobs_by_length = sorted(range(len(jobs)), key=lambda n: -_steps(jobs[n], settings))
    ranked = [jobs[n] for n in jobs_by_length]
    batches = [list(_batches(job, settings)) for job in ranked]
    totals = torch.tensor([len(steps) for steps in batches], device=base.device)
    slab = Slab.of([job.shift for job in ranked], base.device, train=True)
    stack = Stack(beneath, slab, additive)
    shape = slab.shape
    users = [job.examples for job in jobs]
    prepared = cache.prepare(users, stack.layers[0], shape.positions, beginning)
    optimizer = AdamW(slab, weight_decay=settings.weight_decay, clip_norm=settings.clip_norm)
    last_epoch = torch.zeros(len(jobs), device=base.device)
    last_starts = totals - totals // settings.epochs
    for step in range(len(batches[0])):
        active = [steps[step] for steps in batches if step < len(steps)]
        rows = [
            Row(user, ranked[user].examples[n], prepared.items[ranked[user].examples[n]])
            for user, chosen in enumerate(active)
            for n in chosen
        ]
        losses = step_losses(base, stack, prepared, rows)
        gradients = torch.autograd.grad(losses.sum(), slab.tensors)
        rates = torch.full_like(losses, settings.learning_rate)
        if decay_rate:
            rates *= 1 - 0.9 * step / totals[: len(active)]
        losses = losses.detach()
        optimizer.step(losses, gradients, rates)
        sizes = torch.tensor([len(chosen) for chosen in active], device=base.device)
        counts = step >= last_starts[: len(active)]
        last_epoch[: len(active)] += torch.where(counts, losses * sizes, 0.0)
    last_epoch[optimizer.failed] = float("nan")
    slab.copy_to([job.shift for job in ranked])
    fits = {
        n: Fit(len(job.examples), len(steps), loss / len(job.examples))
        for n, job, steps, loss in zip(jobs_by_length, ranked, batches, last_epoch.tolist(), strict=True)
    }
    return [fits[n] for n in range(len(jobs))]


def cohorts(jobs: Iterable[Job], settings: TrainingSettings, cache: ItemCache) -> Iterator[list[Job]]:
    """Successive jobs that fit into one another's company: the budget, and what the device runs at once."""
    room = _TOKENS[cache.base.device.type == "cuda"]
    cohort: list[Job] = []
    tokens = bytes = 0
    for job in jobs:
        kind = _kind(job)
        needed = sum(cache.size(example, kind) for example in set(job.examples))
        run = max(len(e.prompt) + len(e.target) - 1 - kind.start(e) for e in job.examples)
        run *= min(settings.batch_size, len(job.examples))
        if kind.positions.first:  # the shared beginning runs once per user and step
            run += len(kind.beginning)
        if cohort and (tokens + run > room or bytes + needed > cache.budget):
            yield cohort
            cohort, tokens, bytes = [], 0, 0
        cohort.append(job)
        tokens, bytes = tokens + run, bytes + needed
    if cohort:
        yield cohort


def _kind(job: Job) -> Kind:
    """What a job's items would be prepared for if memory were no matter."""
    shape = job.shift.shape
    positions = shape.positions
    contexts = [e.prompt[: context_length(e.prompt, positions.last)] for e in job.examples]
    shared = common_prefix(contexts) if len(contexts) > 1 else 0
    plan = Plan.STATES if positions.first else Plan.CONTEXTS
    return Kind(shape.layers[0], positions, plan, contexts[0][:shared])


def _steps(job: Job, settings: TrainingSettings) -> int:
    return settings.epochs * -(-len(job.examples) // settings.batch_size)


def _batches(job: Job, settings: TrainingSettings) -> Iterator[list[int]]:
    """The job's examples of each step, shuffled anew in each epoch."""
    rng = random.Random(job.order)
    for _ in range(settings.epochs):
        shuffled = rng.sample(range(len(job.examples)), len(job.examples))
        for start in range(0, len(shuffled), settings.batch_size):
            yield shuffled[start : start + settings.batch_size]
