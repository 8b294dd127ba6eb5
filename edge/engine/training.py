"""Fitting shifts to people's pairs; both stages use this, for one person or many side by side."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.items import ItemCache, Kind, Plan, context_length
from fedperfit.edge.engine.prefix import common_prefix
from fedperfit.edge.engine.scoring import Sums
from fedperfit.edge.engine.slab import AdamW, Slab, Stack
from fedperfit.edge.engine.step import Row, step_losses
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError

Watch = Callable[[int, int], None]
"""Called before every step with its number, from 0, and their number; what it raises ends the training."""

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
    batches: Sequence[Sequence[int]] | None = None
    """The examples of each step; by default each epoch goes through all of them, shuffled."""


@dataclass(frozen=True)
class Fit:
    """What a training run did."""

    items: int
    """Examples in an epoch."""
    steps: int
    loss: float
    """Mean loss per example over the last epoch (all steps of given batches), in nats per target token;
    NaN when training failed."""

    @property
    def metrics(self) -> Sums:
        """The loss as a sum over items."""
        return {"loss": self.loss * self.items}


def fit(
    jobs: Sequence[Job],
    settings: TrainingSettings,
    cache: ItemCache,
    *,
    frozen: Sequence[Shift] = (),
    additive: bool = False,
    decay_rate: bool = False,
    prefix: Sequence[int] | None = None,
    watch: Watch | None = None,
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
    stack = Stack(frozen, slab, additive)
    shape = slab.shape
    users = [job.examples for job in jobs]
    prepared = cache.prepare(users, stack.layers[0], shape.positions, prefix)
    optimizer = AdamW(slab, weight_decay=settings.weight_decay, clip_norm=settings.clip_norm)
    last_epoch, counted = torch.zeros(2, len(jobs), device=base.device)
    last_starts = torch.tensor(
        [
            0 if job.batches else len(steps) - len(steps) // settings.epochs
            for job, steps in zip(ranked, batches, strict=True)
        ],
        device=base.device,
    )
    for step in range(len(batches[0])):
        if watch is not None:
            watch(step, len(batches[0]))
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
        counted[: len(active)] += torch.where(counts, sizes, 0)
    last_epoch[optimizer.failed] = float("nan")
    slab.copy_to([job.shift for job in ranked])
    fits = {
        n: Fit(len(job.examples), len(steps), loss)
        for n, job, steps, loss in zip(
            jobs_by_length, ranked, batches, (last_epoch / counted).tolist(), strict=True
        )
    }
    return [fits[n] for n in range(len(jobs))]


@torch.no_grad()
def mean_losses(
    shifts: Sequence[Shift],
    examples: Sequence[Example],
    settings: TrainingSettings,
    cache: ItemCache,
    *,
    frozen: Sequence[Shift],
    additive: bool,
    prefix: Sequence[int] | None = None,
) -> list[float]:
    """Mean loss per example under each of `shifts`, in nats per target token; nothing is trained."""
    stack = Stack(frozen, Slab.of(shifts, cache.base.device), additive)
    prepared = cache.prepare([examples], stack.layers[0], shifts[0].shape.positions, prefix)
    total = torch.zeros(len(shifts), device=cache.base.device)
    for start in range(0, len(examples), settings.batch_size):
        batch = examples[start : start + settings.batch_size]
        rows = [Row(user, e, prepared.items[e]) for user in range(len(shifts)) for e in batch]
        total += len(batch) * step_losses(cache.base, stack, prepared, rows)
    means: list[float] = (total / len(examples)).tolist()
    return means


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
            run += len(kind.prefix)
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
    if job.batches is not None:
        return len(job.batches)
    return settings.epochs * -(-len(job.examples) // settings.batch_size)


def _batches(job: Job, settings: TrainingSettings) -> Iterator[Sequence[int]]:
    """The job's examples of each step: its own, or shuffled anew in each epoch."""
    if job.batches is not None:
        yield from job.batches
        return
    rng = random.Random(job.order)
    for _ in range(settings.epochs):
        shuffled = rng.sample(range(len(job.examples)), len(job.examples))
        for start in range(0, len(shuffled), settings.batch_size):
            yield shuffled[start : start + settings.batch_size]
