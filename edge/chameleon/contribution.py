"""What one agent adds to the group's directions: sums over its preference pairs, which stay with it.

The pairs' hidden states are made from the history and kept in memory only, for the rounds of one search.
"""

import hashlib
from dataclasses import dataclass, field

import torch

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.statistics import Statistics, check_enough
from fedperfit.edge.chameleon.identify import States
from fedperfit.edge.chameleon.pairs import Reader, preference_states
from fedperfit.protocol.messages.settings import ROWS, PairSettings
from fedperfit.protocol.messages.statistics import View, moments_to_bytes, probes_from_bytes, sums_to_bytes
from fedperfit.protocol.shift.probe import Moments, evaluate
from fedperfit.protocol.system.errors import InputError


@dataclass(frozen=True)
class Probing:
    """One evaluation, as the cloud asks for it."""

    probes: bytes
    digest: str
    """SHA-256 of the view the probes are in."""
    view: bytes
    """Empty where the client is thought to have it."""


@dataclass
class Memory:
    """What agents keep between messages, by name; in this process only."""

    states: dict[str, tuple[PairSettings, States]] = field(default_factory=dict)
    coordinates: dict[str, tuple[str, torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """Digest of the view, and what it makes of both sides: (layers, pairs, rank)."""

    def forget(self, name: str) -> None:
        """One agent's."""
        self.states.pop(name, None)
        self.coordinates.pop(name, None)


def moments(agent: Agent, settings: PairSettings, memory: Memory) -> Statistics:
    """Make the pairs anew from the history; their moments. Raises TooFewPairs."""
    memory.forget(agent.history.name)
    states = _kept(agent, settings, memory)
    told = Moments.of(states.personalized, states.neutral, ROWS)
    return Statistics(len(states), {}, moments_to_bytes(told))


def probe(agent: Agent, settings: PairSettings, asked: Probing, memory: Memory) -> Statistics:
    """Sums over the pairs of the probes' loss and gradient; raises InputError for what does not fit."""
    name, card = agent.history.name, agent.base.card
    if asked.view:
        if hashlib.sha256(asked.view).hexdigest() != asked.digest:
            raise InputError("the view does not match its SHA-256")
        view = View.from_bytes(asked.view, card.layers, card.hidden_size)
        states = _kept(agent, settings, memory)
        memory.coordinates[name] = (asked.digest, *view.coordinates(states.personalized, states.neutral))
    digest, p, n = memory.coordinates.get(name, ("", torch.empty(0), torch.empty(0)))
    if digest != asked.digest:
        return Statistics(0, {}, b"")
    probes = probes_from_bytes(asked.probes, card.layers, p.shape[2])
    return Statistics(p.shape[1], {}, sums_to_bytes(*evaluate(p, n, probes)))


def _kept(agent: Agent, settings: PairSettings, memory: Memory) -> States:
    """The pairs as they were told of; made again where the process was started anew."""
    made, states = memory.states.get(agent.history.name, (None, None))
    if made != settings or states is None:
        form = settings.prompt_form
        reader = Reader(agent.base, agent.history.task, form, settings.batch_size, agent.encoder)
        states = preference_states(reader, agent.history, settings.items, settings.source)
        memory.states[agent.history.name] = (settings, states)
    check_enough(len(states), "preference pairs")
    return states
