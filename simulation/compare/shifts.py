"""What the methods that shift hidden states have in common: shapes, training, answers."""

from collections.abc import Sequence
from typing import Any

from fedperfit.cloud.rounds.aggregation import aggregate
from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.edge.engine.training import Job, fit
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.shift.packing import ShiftHeader, pack, unpack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shift import Shift, ShiftShape
from fedperfit.protocol.tasks import Pair
from fedperfit.simulation.compare.baseline_training import CLIP_NORM, WEIGHT_DECAY
from fedperfit.simulation.compare.context import Context, Values, people_digest
from fedperfit.simulation.compare.method import LogUniform

DEPTHS = {
    "early": (0.2, 0.3),
    "middle": (0.44, 0.5),
    "middle-3": (0.44, 0.47, 0.5),
    "spread": (0.2, 0.45, 0.7),
    "late": (0.65, 0.75),
}
"""Where in a model shifts may act, as parts of its depth; `middle` are the paper's layers 14 and 15 of 32."""

RATES = LogUniform(1e-4, 3e-2)
"""Of every trained method: a 7B model wants the lower end, a small one the upper."""
COLLECTIVE_EPOCHS = (1, 2, 3)
PERSONAL_EPOCHS = (2, 4, 6)
RANKS = (2, 4, 8)
COLLECTIVE_RANKS = (4, 8, 16)


def shape(context: Context, layers: str | Sequence[int], rank: int, positions: str) -> ShiftShape:
    """A shift of this base model. layers: numbers, a key of `DEPTHS`, or `all`."""
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


def settings(context: Context, epochs: int, learning_rate: float) -> TrainingSettings:
    """How a shift is trained here."""
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
    context: Context,
    examples: Sequence[Example],
    where: ShiftShape,
    training: TrainingSettings,
    name: str,
    frozen: Sequence[Shift] = (),
) -> Shift:
    """A shift fitted to `examples` on top of `beneath`; `name` seeds its start and the order of items."""
    shift = Shift.identity(where, seed=context.number(name, "start")).to(context.base.device)
    job = Job(shift, examples, f"{context.seed}/{name}")
    fit([job], training, context.items, frozen=frozen, decay_rate=True)
    return shift.requires_grad_(False)


def stack(context: Context, shared: Sequence[Shift], own: Shift | None) -> Stack:
    """What acts when one person's questions are answered."""
    return Stack(shared, Slab.of([own], context.base.device) if own is not None else None, False)


def federated(
    context: Context, others: Sequence[History], values: Values, rounds: int, learning_rate: float
) -> tuple[Shift, int]:
    """The shift of a federation of the others: in each round all train one epoch and are averaged.

    By the cloud's own aggregation; one client after another, so that nothing depends on the company.
    """
    where = shape(context, values["layers"], values["rank"], values["positions"])
    training = settings(context, 1, learning_rate)
    header = ShiftHeader(where, context.task.name, context.base.card.fingerprint, rounds)
    each = -(-context.most_pairs // len(others))
    clients = [(other.name, context.pairs(other)[-each:]) for other in others]

    def make() -> bytes:
        encoded = [(name, context.encode(pairs)) for name, pairs in clients if pairs]
        shift = Shift.identity(where, seed=context.number("collective", "start")).to(context.base.device)
        for number in range(rounds):
            updates = []
            for name, examples in encoded:
                own = _copy(shift)
                fit([Job(own, examples, f"{context.seed}/{name}/{number}")], training, context.items)
                updates.append((own, float(len(examples))))
            shift = aggregate(updates).to(context.base.device)
        return pack(shift, header)

    key = [dict(values), rounds, learning_rate, people_digest(others), each, context.seed]
    packed = context.keep("collective/federated", key, make)
    shift, _ = unpack(packed)
    return shift.requires_grad_(False).to(context.base.device), len(packed)


def _copy(shift: Shift) -> Shift:
    R, W, b = (tensor.detach().clone() for tensor in (shift.R, shift.W, shift.b))
    return Shift(shift.shape, R=R, W=W, b=b)


def collective(
    context: Context, others: Sequence[History], values: Values, pairs: Sequence[Pair], about: Any
) -> tuple[Shift, int]:
    """The shift trained on the others' `pairs`, made once for all methods that share it; and its bytes.

    about: what else than values and people the pairs depend on.
    """
    where = shape(context, values["layers"], values["rank"], values["positions"])
    training = settings(context, values["epochs"], values["learning-rate"])
    header = ShiftHeader(where, context.task.name, context.base.card.fingerprint, 1)
    key = [dict(values), people_digest(others), len(pairs), context.seed, about]

    def make() -> bytes:
        examples = context.encode(context.sampled(pairs))
        return pack(fitted(context, examples, where, training, "collective"), header)

    packed = context.keep("collective/shift", key, make)
    shift, _ = unpack(packed)
    return shift.requires_grad_(False).to(context.base.device), len(packed)
