"""What each way of training must compute at least, in layers x tokens (reference.md, section 2).

One unit is one token through one decoder layer, forward or backward; on frozen weights a backward costs
as much as a forward. Embeddings, logits, the shift itself, the optimizer and attention's quadratic part
are left out. A row's tokens are those a model must read: prompt and target without the end token.
"""

from dataclasses import dataclass

from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.benchmark.workload import Lengths, Workload


@dataclass(frozen=True, kw_only=True)
class Job:
    """Users of equal items on a model of `layers` decoder layers, L."""

    layers: int
    first_layer: int
    """l: the first shifted layer, from 0; its own output is shifted, so no backward enters it."""
    positions: Positions
    lengths: Lengths
    users: int
    items: int
    batch_size: int
    epochs: int

    def __post_init__(self) -> None:
        if not 0 <= self.first_layer < self.layers:
            raise InputError(f"first_layer={self.first_layer}: a model has layers 0..{self.layers - 1}")

    @property
    def rows(self) -> int:
        """Items of all users."""
        return self.users * self.items

    @property
    def upper(self) -> int:
        """L - 1 - l: layers above the first shifted one."""
        return self.layers - 1 - self.first_layer


def job(workload: Workload, card: BaseModelCard) -> Job:
    """The costs' view of a workload on a base model."""
    settings = workload.settings
    shape = settings.shape(card)
    return Job(
        layers=card.layers,
        first_layer=shape.layers[0],
        positions=shape.positions,
        lengths=workload.lengths,
        users=workload.users,
        items=workload.items,
        batch_size=settings.batch_size,
        epochs=settings.personal_epochs,
    )


def plain(job: Job) -> int:
    """A hook at layer l: forward through all L layers, backward through those above l; 49 per token."""
    return job.epochs * job.rows * job.lengths.inputs * (job.layers + job.upper)


def lora(job: Job, *, checkpointing: bool = False) -> int:
    """LoRA in every layer: forward and backward through all (64), checkpointing forward once more (96)."""
    return job.epochs * job.rows * job.lengths.inputs * job.layers * (3 if checkpointing else 2)


def engine(job: Job) -> int:
    """What is left when nothing constant is computed twice: 15 per token once, 34 per epoch.

    With `lM`, only the last M prompt tokens and the target are trained on, the rest of each prompt runs
    once and the shared beginning once for all users. With first positions, the shared beginning depends
    on the user's shift above layer l: once per user and step there, once for all users below.
    """
    lengths = job.lengths
    if job.positions.first:
        own = lengths.inputs - lengths.shared
        steps = job.epochs * -(-job.items // job.batch_size)
        building = (job.first_layer + 1) * (job.rows * own + lengths.shared)
        training = 2 * job.upper * (job.epochs * job.rows * own + job.users * steps * lengths.shared)
        return building + training
    tail = lengths.inputs - context(job)
    unique = context(job) - shared_context(job)
    building = (
        job.layers * (job.rows * unique + shared_context(job)) + (job.first_layer + 1) * job.rows * tail
    )
    return building + 2 * job.upper * job.epochs * job.rows * tail


def context(job: Job) -> int:
    """Prompt tokens of an item before the last M, for positions `lM`."""
    return max(0, job.lengths.prompt - job.positions.last)


def shared_context(job: Job) -> int:
    """Those of them that all items share."""
    return min(job.lengths.shared, context(job))


def speed_up(job: Job) -> float:
    """The plain path's cost as a multiple of the engine's: what the engine can gain at most."""
    return plain(job) / engine(job)
