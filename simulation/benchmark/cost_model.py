"""Least work of each contender, in layers x tokens.

One unit is one token through one decoder layer, forward or backward; on frozen weights a backward costs as
much as a forward. Embeddings, logits, the shift itself, the optimizer and attention's quadratic part are left
out. A row's tokens are those a model must read: prompt and target without the end token. Units per token in
docstrings are those of 32 layers, the first shifted one being 14.
"""

from dataclasses import dataclass

from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.benchmark.workload import Lengths, Workload


@dataclass(frozen=True, kw_only=True)
class TrainingLoad:
    """Training of users with equal items on a model of `layers` decoder layers, L.

    Raises:
        InputError: The model has no layer `first_layer`.
    """

    layers: int
    first_layer: int
    """First shifted layer, l, from 0; its own output is shifted, so no backward enters it."""
    positions: Positions
    lengths: Lengths
    """Tokens of every item."""
    users: int
    items: int
    """Items of each user."""
    batch_size: int
    epochs: int

    def __post_init__(self) -> None:
        if not 0 <= self.first_layer < self.layers:
            raise InputError(f"first_layer={self.first_layer}: a model has layers 0..{self.layers - 1}")

    @property
    def rows(self) -> int:
        """Items of all users together."""
        return self.users * self.items

    @property
    def upper(self) -> int:
        """Layers above the first shifted one, L - 1 - l."""
        return self.layers - 1 - self.first_layer


def load_of(workload: Workload, card: BaseModelCard) -> TrainingLoad:
    """Return the load of a workload on a base model.

    Args:
        workload: Users, items and settings.
        card: Shape of the base model.
    """
    settings = workload.settings
    shape = settings.shape(card)
    return TrainingLoad(
        layers=card.layers,
        first_layer=shape.layers[0],
        positions=shape.positions,
        lengths=workload.lengths,
        users=workload.users,
        items=workload.items,
        batch_size=settings.batch_size,
        epochs=settings.personal_epochs,
    )


def plain(load: TrainingLoad) -> int:
    """Work with a hook at layer l: all L layers forward, those above l backward; 49 per token."""
    return load.epochs * load.rows * load.lengths.inputs * (load.layers + load.upper)


def lora(load: TrainingLoad, *, checkpointing: bool = False) -> int:
    """Work with LoRA in every layer: forward and backward through all layers; 64 per token.

    Args:
        load: The training.
        checkpointing: Run each forward once more for the backward; 96 per token.
    """
    return load.epochs * load.rows * load.lengths.inputs * load.layers * (3 if checkpointing else 2)


def engine(load: TrainingLoad) -> int:
    """Work that is left when nothing constant is computed twice: 15 per token once, and 34 per epoch.

    With `lM` only the last M prompt tokens and the target are trained on; the rest of each prompt runs once,
    and the shared prefix once for all users. With first positions the shared prefix depends on the user's
    shift above layer l: it runs once per user and step there, and once for all users below.
    """
    lengths = load.lengths
    if load.positions.first:
        own = lengths.inputs - lengths.shared
        steps = load.epochs * -(-load.items // load.batch_size)
        building = (load.first_layer + 1) * (load.rows * own + lengths.shared)
        training = 2 * load.upper * (load.epochs * load.rows * own + load.users * steps * lengths.shared)
        return building + training
    tail = lengths.inputs - prompt_context(load)
    unique = prompt_context(load) - shared_context(load)
    building = (
        load.layers * (load.rows * unique + shared_context(load)) + (load.first_layer + 1) * load.rows * tail
    )
    return building + 2 * load.upper * load.epochs * load.rows * tail


def prompt_context(load: TrainingLoad) -> int:
    """Count the prompt tokens of an item before the last M, for positions `lM`."""
    return max(0, load.lengths.prompt - load.positions.last)


def shared_context(load: TrainingLoad) -> int:
    """Count the prompt tokens before the last M that all items share."""
    return min(load.lengths.shared, prompt_context(load))
