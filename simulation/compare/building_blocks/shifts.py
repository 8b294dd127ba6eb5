"""Common parts of the methods that shift hidden states: shapes, training, answers."""

from collections.abc import Sequence
from typing import Any

from fedperfit.cloud.rounds.aggregation import aggregate
from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.shift.packing import ShiftHeader, pack, unpack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.tasks import Pair
from fedperfit.simulation.compare.building_blocks.baseline_training import CLIP_NORM, WEIGHT_DECAY
from fedperfit.simulation.compare.context import MethodContext, Values, people_digest
from fedperfit.simulation.compare.method import LogUniform

DEPTHS = {
    "early": (0.2, 0.3),
    "middle": (0.44, 0.5),
    "middle-3": (0.44, 0.47, 0.5),
    "spread": (0.2, 0.45, 0.7),
    "late": (0.65, 0.75),
}
"""Layers where shifts may act, as parts of a model's depth; `middle` are PerFit's layers 14 and 15 of 32."""

RATES = LogUniform(1e-4, 3e-2)
"""Learning rates of every trained method; a 7B model needs the lower end, a small one the upper."""
COLLECTIVE_EPOCHS = (1, 2, 3)
"""Numbers of epochs that the search draws from."""
PERSONAL_EPOCHS = (2, 4, 6)
RANKS = (2, 4, 8)
"""Ranks of personal and of collective shifts that the search draws from."""
COLLECTIVE_RANKS = (4, 8, 16)


def shape(context: MethodContext, layers: str | Sequence[int], rank: int, positions: str) -> ShiftShape:
    """Make the shape of a shift of this base model.

    Args:
        context: The base model's.
        layers: Numbers of layers, a key of `DEPTHS`, or `all`.
        rank: Rank of the shift.
        positions: Positions as `fN+lM`.
    """
    depth = context.base.card.layers
    if layers == "all":
        layers = range(depth)
    elif isinstance(layers, str):
        layers = sorted({min(depth - 1, int(part * depth + 1e-9)) for part in DEPTHS[layers]})
    return ShiftShape(
        layers=tuple(layers),
        rank=rank,
        hidden_size=context.base.card.hidden_size,
        positions=Positions.parse(positions),
    )


def settings(context: MethodContext, epochs: int, learning_rate: float) -> TrainingSettings:
    """Make the settings with which shifts are trained in a comparison.

    Args:
        context: Seed, batch size and prompt form.
        epochs: Passes over the items.
        learning_rate: Peak learning rate.
    """
    return TrainingSettings(
        seed=context.seed,
        epochs=epochs,
        batch_size=context.batch_size,
        learning_rate=learning_rate,
        weight_decay=WEIGHT_DECAY,
        clip_norm=CLIP_NORM,
        max_items=0,
        prompt_form=context.form,
    )


def fitted(
    context: MethodContext,
    examples: Sequence[Example],
    where: ShiftShape,
    training: TrainingSettings,
    name: str,
    frozen: Sequence[Shift] = (),
) -> Shift:
    """Fit a shift to `examples`.

    Args:
        context: Model and seed.
        examples: Training examples.
        where: Shape of the shift.
        training: Settings of the training.
        name: Name that seeds the start and the order of items.
        frozen: Shifts that act before it and stay as they are.
    """
    shift = Shift.identity(where, seed=context.number(name, "start")).to(context.base.device)
    job = FitJob(shift, examples, f"{context.seed}/{name}")
    fit([job], training, context.items, frozen=frozen, decay_rate=True)
    return shift.requires_grad_(False)


def stack(context: MethodContext, shared: Sequence[Shift], own: Shift | None) -> Stack:
    """Stack the shifts that act when one user's questions are answered.

    Args:
        context: The model's device.
        shared: Shifts that act first.
        own: The user's shift, if there is one.
    """
    return Stack(shared, Slab.of([own], context.base.device) if own is not None else None, False)


def federated(
    context: MethodContext, others: Sequence[History], values: Values, rounds: int, learning_rate: float
) -> tuple[Shift, int]:
    """Train a collective shift by federation: in each round all train one epoch and are averaged.

    It uses the cloud's own aggregation. One client trains after another, so that no result depends on who
    else takes part.

    Args:
        context: Model, seed, and where the shift is kept.
        others: Clients of the federation.
        values: Hyper-parameters `layers`, `positions` and `rank`.
        rounds: Rounds of the federation.
        learning_rate: Learning rate, constant within a round.

    Returns:
        The shift and the bytes of its packed form.
    """
    where = shape(context, values["layers"], values["rank"], values["positions"])
    training = settings(context, 1, learning_rate)
    header = ShiftHeader(where, context.task.id, context.base.card.fingerprint, rounds)
    each = -(-context.most_pairs // len(others))
    clients = [(other.name, context.pairs(other)[-each:]) for other in others]

    def make() -> bytes:
        encoded = [(name, context.encode(pairs)) for name, pairs in clients if pairs]
        shift = Shift.identity(where, seed=context.number("collective", "start")).to(context.base.device)
        for number in range(rounds):
            updates = []
            for name, examples in encoded:
                own = shift.copy()
                fit([FitJob(own, examples, f"{context.seed}/{name}/{number}")], training, context.items)
                updates.append((own, float(len(examples))))
            shift = aggregate(updates).to(context.base.device)
        return pack(shift, header)

    key = [dict(values), rounds, learning_rate, people_digest(others), each, context.seed]
    packed = context.keep("collective/federated", key, make)
    shift, _ = unpack(packed)
    return shift.requires_grad_(False).to(context.base.device), len(packed)


def collective(
    context: MethodContext, others: Sequence[History], values: Values, pairs: Sequence[Pair], about: Any
) -> tuple[Shift, int]:
    """Train a collective shift on pooled pairs, once for all methods that share it.

    Args:
        context: Model, seed, and where the shift is kept.
        others: Users whose pairs are trained on.
        values: Hyper-parameters `layers`, `positions`, `rank`, `epochs` and `learning-rate`.
        pairs: Training pairs of the others.
        about: What the pairs depend on beside values and users, as JSON values.

    Returns:
        The shift and the bytes of its packed form.
    """
    where = shape(context, values["layers"], values["rank"], values["positions"])
    training = settings(context, values["epochs"], values["learning-rate"])
    header = ShiftHeader(where, context.task.id, context.base.card.fingerprint, 1)
    key = [dict(values), people_digest(others), len(pairs), context.seed, about]

    def make() -> bytes:
        examples = context.encode(context.sampled(pairs))
        return pack(fitted(context, examples, where, training, "collective"), header)

    packed = context.keep("collective/shift", key, make)
    shift, _ = unpack(packed)
    return shift.requires_grad_(False).to(context.base.device), len(packed)
