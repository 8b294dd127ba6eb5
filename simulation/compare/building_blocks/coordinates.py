"""Common parts of the methods in a frozen basis: the basis, rounds of votes, and a prior over people.

All are made of the others, who are no targets. In a deployment basis and prior are made of public people, of
whom a comparison has none.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.layer_gradients import layer_gradient, state_moments
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.protocol.people.people import People
from fedperfit.protocol.people.prior import estimated_prior
from fedperfit.protocol.people.scatter import Scatter
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.basis_sources import public_basis
from fedperfit.protocol.shift.codecs import decode, encode
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Pair
from fedperfit.simulation.compare.building_blocks.shifts import DEPTHS, settings, shape
from fedperfit.simulation.compare.context import MethodContext, Values, people_digest

LAYERS: dict[str, tuple[float, ...]] = {**DEPTHS, "with-last": (0.44, 0.999)}
"""Where shifts in a basis may act: in the last one few numbers tell how often which answer is given."""
ROUNDS = 8
"""Rounds of votes, in which all others take part."""
PASSES = 30
"""Passes over the items of each other person whose coordinates tell how people differ."""
FLOOR = 0.3
"""Variance in all directions, as a share of the mean variance between people: the product's default."""


def others_basis(context: MethodContext, others: Sequence[History], values: Values) -> Basis:
    """Make the basis that the others' gradients and states show, once for all methods that share it.

    Args:
        context: The base model, and where the basis is kept.
        others: People who are no targets.
        values: Hyper-parameters `layers`, `positions`, `rank` and `columns`.
    """
    where = shape(context, _layers(context, values), values["rank"], values["positions"])
    several = [pairs for _, pairs in clients_of(context, others)]

    def make() -> bytes:
        positions, size = where.positions, context.batch_size
        flat = [pair for pairs in several for pair in pairs]
        made = public_basis(
            [layer_gradient(context.base, pairs, positions, size) for pairs in several],
            state_moments(context.base, flat, positions, where.layers, size),
            where,
            values["columns"],
            task=context.task.id,
            fingerprint=context.base.card.fingerprint,
            seed=context.number("basis"),
        )
        return made.to_bytes()

    about = [str(where), values["columns"], people_digest(others), context.most_pairs, context.seed]
    return Basis.from_bytes(context.keep("collective/basis", about, make))


def voted(context: MethodContext, others: Sequence[History], basis: Basis, rate: float) -> Coordinates:
    """Train collective coordinates by federation: each other trains one epoch a round, and votes.

    It uses the cloud's own count of votes. One client trains after another, so that no result depends on who
    else takes part.

    Args:
        context: The base model, seed, and where the coordinates are kept.
        others: Clients of the federation.
        basis: Basis of the coordinates.
        rate: Learning rate, constant within a round.
    """
    from fedperfit.cloud.clients.coordinate_gate import CoordinateUpdate  # brings Flower
    from fedperfit.cloud.rounds.coordinate_form import CoordinateForm
    from fedperfit.cloud.rounds.settings import FederationSettings

    clients, training = clients_of(context, others), settings(context, 1, rate)

    def make() -> bytes:
        encoded = [(name, context.encode(pairs)) for name, pairs in clients]
        rounds = CoordinateForm(basis, FederationSettings(rounds=ROUNDS, dtype="sign"))
        state = Coordinates.zero(basis)
        for number in range(ROUNDS):
            keep, votes = rounds.keeper(), []
            for name, examples in encoded:
                own = Coordinates.of(basis, state.numbers)
                fit([FitJob(own, examples, f"{context.seed}/{name}/{number}")], training, context.items)
                sent = encode("sign", own.numbers - state.numbers, 0)
                change, items = decode("sign", sent, basis.numbers), len(examples)
                votes.append(keep(CoordinateUpdate(name, change, items, {}, items)))
            state = rounds.combine(votes, state, number + 1)
        return encode("float32", state.numbers, 0)

    about = [basis.digest, rate, people_digest(others), context.most_pairs, context.seed]
    numbers = decode("float32", context.keep("collective/votes", about, make), basis.numbers)
    return Coordinates.of(basis, numbers)


def others_prior(
    context: MethodContext,
    others: Sequence[History],
    basis: Basis,
    rate: float,
    *,
    strength: float,
    numbers: int,
) -> People:
    """Make the prior that whole fits of the others show, who are fitted once for all strengths.

    Args:
        context: The base model, seed, and where their scatter is kept.
        others: People who are no targets.
        basis: Basis of the coordinates.
        rate: Learning rate of their fits.
        strength: Weight of the prior beside the answers' losses.
        numbers: Numbers of a person at most, along that many leading directions; 0 is all of the basis.

    Raises:
        InputError: The others do not differ.
    """
    clients, training = clients_of(context, others), settings(context, PASSES, rate)

    def make() -> bytes:
        fitted = []
        for name, pairs in clients:
            own = Coordinates.zero(basis)
            job = FitJob(own, context.encode(pairs), f"{context.seed}/{name}/whole")
            fit([job], training, context.items, decay_rate=True)
            fitted.append(own.numbers)
        return Scatter.of(basis.digest, torch.stack(fitted)).to_bytes()

    about = [basis.digest, rate, people_digest(others), context.most_pairs, context.seed]
    kept = context.keep("collective/scatter", about, make)
    scatter = Scatter.from_bytes(kept, basis.digest, basis.numbers)
    prior = estimated_prior(scatter.total, scatter.count, floor=FLOOR, strength=strength, items=1)
    return People(basis, replace(prior, numbers=min(numbers, len(prior.deviations))))


def _layers(context: MethodContext, values: Values) -> list[int]:
    depth = context.base.card.layers
    return sorted({int(part * depth) for part in LAYERS[values["layers"]]})


def clients_of(context: MethodContext, others: Sequence[History]) -> list[tuple[str, list[Pair]]]:
    """Return the name and pairs of each other who has any; while values are searched, the latest few.

    Args:
        context: The task, and how many pairs a search may use.
        others: People who are no targets.

    Raises:
        InputError: None of them has any.
    """
    each = -(-context.most_pairs // len(others))
    clients = [(other.name, context.pairs(other)[-each:]) for other in others]
    with_pairs = [(name, pairs) for name, pairs in clients if pairs]
    if not with_pairs:
        raise InputError("a basis is made of other people's items, and there are none")
    return with_pairs
