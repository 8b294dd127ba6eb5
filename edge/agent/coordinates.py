"""Rounds in a frozen basis at the edge: coordinates come, what training changed in them goes."""

from collections.abc import Iterable, Iterator

from fedperfit.edge.agent.agent import Agent, Result
from fedperfit.edge.agent.basis_file import BasisLacking, CoordinateRequest
from fedperfit.edge.agent.outcome import Contribution, Outcome
from fedperfit.edge.agent.side_by_side import trained
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.training import TOLD_STEP, Fit, FitJob, Watch
from fedperfit.edge.sums.requests import sealed_update
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.messages.sums import broadcast_digest
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.coordinate_packing import Agreement, pack_update, unpack_coordinates
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.seeds import seed_from

LACKING = Contribution(0, {}, b"")
"""The answer of an agent that must be sent the basis first."""


def contribute_coordinates(
    agents: Iterable[Agent],
    request: CoordinateRequest,
    settings: TrainingSettings,
    items: ItemCache,
    watch: Watch | None = None,
) -> Iterator[Result]:
    """Train the collective shift's coordinates for a round of stage 1, for many agents side by side.

    Args:
        agents: share the base model of `items`.
        request: broadcast coordinates.
        settings: epochs, batch size and rates of the round.
        items: cache shared by the agents.
        watch: called before every step.

    Yields:
        Each agent with its outcome, as they come; without items or an update where it lacks the basis.
    """
    begun: dict[Basis, tuple[Coordinates, Agreement]] = {}

    def broadcast(basis: Basis) -> tuple[Coordinates, Agreement]:
        if basis not in begun:
            begun[basis] = unpack_coordinates(request.packed, basis, request.wanted.codec)
        return begun[basis]

    def job(agent: Agent) -> FitJob[Coordinates]:
        basis = agent.basis.find(request)
        if basis.fingerprint != items.base.card.fingerprint:
            raise InputError("the basis is for another base model")
        if basis.task != agent.history.task.id:
            raise InputError(f"the basis is for task {basis.task}")
        before, agreement = broadcast(basis)
        pairs = agent.shared_history.pairs(settings.prompt_form, settings.max_items)
        if not pairs:
            raise InputError("there is no history to train on")
        own = Coordinates.of(basis, before.numbers)
        order = _order(agent, settings, agreement)
        return FitJob(own, encode(items.base, pairs), order, fewest=TOLD_STEP)

    def conclude(agent: Agent, job: FitJob[Coordinates], done: Fit) -> Outcome:
        before, agreement = broadcast(job.shift.basis)
        change = job.shift.numbers - before.numbers
        seed = seed_from(f"{job.order}/rounding")
        if request.sums is None:
            return Contribution(done.items, done.metrics, pack_update(change, agreement, seed))
        told = broadcast_digest(request.packed, settings)
        update = sealed_update(agent.sums, change, request.sums, agreement, told, seed)
        return Contribution(1, {}, update)  # nothing of one client but that it took part

    for agent, result in trained(agents, job, conclude, settings, items, watch=watch):
        yield agent, LACKING if isinstance(result, BasisLacking) else result


def contribute_alone(
    agent: Agent, request: CoordinateRequest, settings: TrainingSettings, watch: Watch | None = None
) -> Contribution:
    """Train the coordinates for one agent; raises InputError where `contribute_coordinates` yields one.

    Args:
        agent: the person's agent.
        request: broadcast coordinates.
        settings: epochs, batch size and rates of the round.
        watch: called before every step.
    """
    ((_, result),) = contribute_coordinates([agent], request, settings, agent.items, watch)
    if isinstance(result, InputError):
        raise result
    assert isinstance(result, Contribution)
    return result


def _order(agent: Agent, settings: TrainingSettings, agreement: Agreement) -> str:
    """Seed of the shuffling, that of a round in which whole shifts travel."""
    return f"{settings.seed}/{agent.history.name}/{agreement.round}"
