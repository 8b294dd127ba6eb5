"""Fits shifts to users' training pairs, for one user or many side by side; both stages of PerFit use this."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.items import ItemCache, Prepared
from fedperfit.edge.engine.paths.check import checked
from fedperfit.edge.engine.people.private import Private, fit_privately
from fedperfit.edge.engine.people.whitened import PASSES, Whitened, fit_under_prior
from fedperfit.edge.engine.scoring import Sums
from fedperfit.edge.engine.slab import AdamW, CoordinateSlab, OwnShifts, Slab, Stack
from fedperfit.edge.engine.step import StepRow, step_losses
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError

Watch = Callable[[int, int], None]
"""Called before every step with the step's number, from 0, and the number of steps; an error it raises
ends the training."""

Trained = TypeVar("Trained", bound=Shift | Coordinates | Whitened | Private)
"""What is trained: a shift, its coordinates in a frozen basis, or these under a prior over people."""

TOLD_STEP = 4
"""Items of a step of an update that others see, at least, unless there are fewer: a cloud chooses the order
of the items, and would read the last of an epoch where it is a step of its own."""


@dataclass(frozen=True)
class FitJob(Generic[Trained]):
    """A shift to be fitted to one user's examples."""

    shift: Trained
    """The shift, or its coordinates in a frozen basis, which training changes in place."""
    examples: Sequence[Example]
    """The user's training pairs as token ids."""
    order: str
    """Seed of the shuffling, any text."""
    batches: Sequence[Sequence[int]] | None = None
    """Numbers of the examples in each step; by default each epoch goes through all examples, shuffled."""
    fewest: int = 1
    """Examples of the last step of an epoch; fewer are part of the step before."""


@dataclass(frozen=True)
class Fit:
    """Result of fitting one user's shift."""

    items: int
    """Examples in an epoch."""
    steps: int
    """Number of optimizer steps taken."""
    loss: float | None
    """Mean loss per example over the last epoch (all steps of given batches), in nats per target token;
    NaN when training failed, None where it may not be told."""

    @property
    def metrics(self) -> Sums:
        """The loss as a sum over the items, for pooling over users."""
        return {} if self.loss is None else {"loss": self.loss * self.items}

    @property
    def failed(self) -> bool:
        """Whether training ended in numbers that are not finite."""
        return self.loss is not None and not math.isfinite(self.loss)


@dataclass(frozen=True)
class _UserSchedule:
    """The steps of one user."""

    number: int
    """Place of the user among the jobs."""
    job: FitJob[Any]
    batches: list[Sequence[int]]
    """Numbers of the examples in each step."""
    last_epoch: int
    """First step whose loss is reported: the last epoch's, or 0 where the batches were given."""

    @classmethod
    def of(cls, number: int, job: FitJob[Any], settings: TrainingSettings) -> "_UserSchedule":
        batches = list(_batches(job, settings))
        last_epoch = 0 if job.batches else len(batches) - len(batches) // settings.epochs
        return cls(number, job, batches, last_epoch)


class _Schedule:
    """The steps of users trained side by side.

    The users with the most steps come first, so that those still training are always the leading ones.
    """

    def __init__(self, jobs: Sequence[FitJob[Any]], settings: TrainingSettings, device: torch.device) -> None:
        users = [_UserSchedule.of(number, job, settings) for number, job in enumerate(jobs)]
        self.users = sorted(users, key=lambda user: -len(user.batches))
        self.steps = len(self.users[0].batches)
        self._totals = torch.tensor([len(user.batches) for user in self.users], device=device)
        self._last_epochs = torch.tensor([user.last_epoch for user in self.users], device=device)
        self._loss_sums, self._examples = torch.zeros(2, len(jobs), device=device)

    def active(self, step: int) -> list[_UserSchedule]:
        """The users who take this step."""
        return [user for user in self.users if step < len(user.batches)]

    def decay(self, step: int, users: int) -> torch.Tensor:
        """(users,) factor of the learning rate of the first `users`: falls linearly from 1 to a tenth."""
        return 1 - 0.9 * step / self._totals[:users]

    def record(self, step: int, losses: torch.Tensor) -> None:
        """Count the mean losses (active users,) of a step into the means that are reported."""
        users = len(losses)
        sizes = [len(user.batches[step]) for user in self.active(step)]
        examples = torch.tensor(sizes, device=losses.device)
        reported = step >= self._last_epochs[:users]
        self._loss_sums[:users] += torch.where(reported, losses * examples, 0.0)
        self._examples[:users] += torch.where(reported, examples, 0)

    def fits(self, failed: torch.Tensor) -> list[Fit]:
        """The results in the order of the jobs; failed: (users,) bool, in the order of the schedule."""
        self._loss_sums[failed] = float("nan")
        means = (self._loss_sums / self._examples).tolist()
        fits = {
            user.number: Fit(len(user.job.examples), len(user.batches), loss)
            for user, loss in zip(self.users, means, strict=True)
        }
        return [fits[number] for number in range(len(fits))]


def fit(
    jobs: Sequence[FitJob[Any]],
    settings: TrainingSettings,
    cache: ItemCache,
    *,
    frozen: Sequence[Shift] = (),
    additive: bool = False,
    decay_rate: bool = False,
    prefix: Sequence[int] | None = None,
    watch: Watch | None = None,
) -> list[Fit]:
    """Train the shifts of the jobs in place, side by side.

    Each user takes steps of their own: own batches, loss, clipping and rate, and so ends where they would
    alone. AdamW with no weight decay on R, whose gradient is kept tangent and whose rows are made
    orthonormal again after every step. A user whose loss or gradient is not finite stays at that step.

    Args:
        jobs: one per user, with shifts of one shape.
        settings: epochs, batch size, learning rate, weight decay and clipping, for all users.
        cache: prepared items of the base model that the shifts are trained on.
        frozen: shifts shared by all users that act before the trained ones and do not change.
        additive: every shift of a layer acts on the layer's own output, not on what the former ones made.
        decay_rate: let the learning rate fall linearly to a tenth.
        prefix: tokens every prompt is known to begin with; see `ItemCache.prepare`.
        watch: called before every step.

    Returns:
        One result per job, in the order of the jobs.

    Raises:
        InputError: a job has no examples, or the shifts differ in shape or basis or can change nothing.
    """
    if any(not job.examples for job in jobs):
        raise InputError("there is no history to train on")
    if isinstance(jobs[0].shift, Private):
        return [_fit_privately(job, cache, frozen, additive, prefix, watch) for job in jobs]
    base = cache.base
    jobs[0].shift.shape.check_effect(len(decoder_layers(base.model)))
    if isinstance(jobs[0].shift, Whitened):
        return _fit_under_prior(jobs, cache, frozen, additive, prefix, watch)
    schedule = _Schedule(jobs, settings, base.device)
    shifts = [user.job.shift for user in schedule.users]
    slab, write_back = _slab(shifts, base.device)
    stack = Stack(frozen, slab, additive)
    path = checked(base, stack.layers, slab.shape.positions).training
    examples = [job.examples for job in jobs]
    prepared = cache.prepare(examples, stack.layers[0], slab.shape.positions, prefix, path)
    optimizer = AdamW(slab, weight_decay=settings.weight_decay, clip_norm=settings.clip_norm)
    for step in range(schedule.steps):
        if watch is not None:
            watch(step, schedule.steps)
        losses = step_losses(base, stack, prepared, _rows(schedule.active(step), step, prepared))
        gradients = torch.autograd.grad(losses.sum(), slab.tensors)
        losses = losses.detach()
        rates = torch.full_like(losses, settings.learning_rate)
        if decay_rate:
            rates *= schedule.decay(step, len(losses))
        optimizer.step(losses, gradients, rates)
        schedule.record(step, losses)
    write_back()
    return schedule.fits(optimizer.failed)


def _fit_privately(
    job: FitJob[Private],
    cache: ItemCache,
    frozen: Sequence[Shift],
    additive: bool,
    prefix: Sequence[int] | None,
    watch: Watch | None,
) -> Fit:
    job.shift.shape.check_effect(len(decoder_layers(cache.base.model)))
    fit_privately(
        job.shift, job.examples, cache, frozen=frozen, additive=additive, prefix=prefix, watch=watch
    )
    return Fit(len(job.examples), job.shift.how.steps, None)


def _fit_under_prior(
    jobs: Sequence[FitJob[Any]],
    cache: ItemCache,
    frozen: Sequence[Shift],
    additive: bool,
    prefix: Sequence[int] | None,
    watch: Watch | None,
) -> list[Fit]:
    users = [job.shift for job in jobs if isinstance(job.shift, Whitened)]
    if len(users) < len(jobs) or any(user.people is not users[0].people for user in users):
        raise InputError("users trained together need coordinates in one basis")
    examples = [job.examples for job in jobs]
    losses = fit_under_prior(
        users, examples, cache, frozen=frozen, additive=additive, prefix=prefix, watch=watch
    )
    return [Fit(len(job.examples), PASSES, loss) for job, loss in zip(jobs, losses, strict=True)]


def _slab(
    shifts: Sequence[Shift | Coordinates], device: torch.device
) -> tuple[OwnShifts, Callable[[], None]]:
    """A slab that trains copies of these shifts, and what writes them back when they are trained.

    Raises:
        InputError: the shifts do not belong together.
    """
    if any(shift.shape != shifts[0].shape for shift in shifts):
        raise InputError("users trained together need shifts of one shape")
    plain = [shift for shift in shifts if isinstance(shift, Shift)]
    coordinates = [shift for shift in shifts if isinstance(shift, Coordinates)]
    bases = {each.basis.digest for each in coordinates}
    if len(plain) + len(coordinates) < len(shifts) or len(bases) + bool(plain) > 1:
        raise InputError("users trained together need coordinates in one basis")
    if plain:
        slab = Slab.of(plain, device, train=True)
        return slab, partial(slab.copy_to, plain)
    in_basis = CoordinateSlab.of(coordinates, device)
    return in_basis, partial(in_basis.copy_to, coordinates)


def _rows(active: Sequence[_UserSchedule], step: int, prepared: Prepared) -> list[StepRow]:
    """The examples of a step, each with the place of its user in the slab."""
    batches = [[user.job.examples[n] for n in user.batches[step]] for user in active]
    return [
        StepRow(place, example, prepared.items[example])
        for place, batch in enumerate(batches)
        for example in batch
    ]


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
    """Mean loss per example under each of `shifts`, without training.

    Args:
        shifts: of one shape, each tried on all examples.
        examples: at least one.
        settings: only the batch size is used.
        cache: prepared items of the base model.
        frozen: shifts that act before each of `shifts`.
        additive: every shift of a layer acts on the layer's own output.
        prefix: tokens every prompt is known to begin with; see `ItemCache.prepare`.

    Returns:
        One mean per shift, in nats per target token.
    """
    stack = Stack(frozen, Slab.of(shifts, cache.base.device), additive)
    path = checked(cache.base, stack.layers, stack.positions).training
    prepared = cache.prepare([examples], stack.layers[0], shifts[0].shape.positions, prefix, path)
    total = torch.zeros(len(shifts), device=cache.base.device)
    for start in range(0, len(examples), settings.batch_size):
        batch = examples[start : start + settings.batch_size]
        rows = [StepRow(user, e, prepared.items[e]) for user in range(len(shifts)) for e in batch]
        total += len(batch) * step_losses(cache.base, stack, prepared, rows)
    means: list[float] = (total / len(examples)).tolist()
    return means


def _batches(job: FitJob[Any], settings: TrainingSettings) -> Iterator[Sequence[int]]:
    """Numbers of the job's examples in each step: as given, or shuffled anew in each epoch."""
    if job.batches is not None:
        yield from job.batches
        return
    rng = random.Random(job.order)
    for _ in range(settings.epochs):
        shuffled = rng.sample(range(len(job.examples)), len(job.examples))
        for start, end in _steps(len(shuffled), settings.batch_size, job.fewest):
            yield shuffled[start:end]


def _steps(items: int, batch_size: int, fewest: int) -> Iterator[tuple[int, int]]:
    """Where each step of an epoch begins and ends; a rest of fewer items is part of the step before it."""
    start = 0
    while start < items:
        end = start + batch_size
        if items - end < min(fewest, batch_size):
            end = items
        yield start, end
        start = end
