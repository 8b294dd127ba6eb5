"""Contributes one agent's part to the group's directions: sums over its preference pairs, which stay here.

The pairs' hidden states are made from the history and kept in memory only, for the rounds of one search.
"""

import hashlib
from dataclasses import dataclass, field

import torch

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.statistics import Statistics, check_enough
from fedperfit.edge.chameleon.identify import States
from fedperfit.edge.chameleon.pairs import Reader, Settle, as_chosen, preference_states
from fedperfit.protocol.messages.settings import ROWS, PairSettings
from fedperfit.protocol.messages.statistics import View, moments_to_bytes, probes_from_bytes, sums_to_bytes
from fedperfit.protocol.shift.probe import Moments, evaluate
from fedperfit.protocol.system.errors import InputError


@dataclass(frozen=True)
class Probing:
    """Request of the cloud to evaluate probes on the preference pairs."""

    probes: bytes
    """Probes as `protocol/messages/statistics.py` encodes them."""
    digest: str
    """SHA-256 of the view that the probes are in, in hexadecimal digits."""
    view: bytes
    """Encoded view; empty where the cloud expects the client to have it."""


@dataclass
class Memory:
    """States of preference pairs that agents keep between messages, in this process only."""

    states: dict[str, tuple[PairSettings, States]] = field(default_factory=dict)
    """Settings and hidden states of the pairs, by the agent's name."""
    settle: Settle = as_chosen
    """What decides on the items of the pairs."""
    coordinates: dict[str, tuple[str, torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """Digest of the view and both sides' coordinates in it, (layers, pairs, rank), by the agent's name."""

    def forget(self, name: str) -> None:
        """Drop the states of one agent."""
        self.states.pop(name, None)
        self.coordinates.pop(name, None)


def moments(agent: Agent, settings: PairSettings, memory: Memory) -> Statistics:
    """Make the preference pairs anew from the history and compute their moments.

    Args:
        agent: owner of the history.
        settings: number and source of the pairs.
        memory: keeps the pairs' states for `probe`.

    Raises:
        TooFewPairs: the history gives too few pairs.
    """
    memory.forget(agent.history.name)
    states = _pair_states(agent, settings, memory)
    pair_moments = Moments.of(states.personalized, states.neutral, ROWS)
    return Statistics(len(states), {}, moments_to_bytes(pair_moments))


def probe(agent: Agent, settings: PairSettings, probing: Probing, memory: Memory) -> Statistics:
    """Sum the probes' loss and gradient over the preference pairs.

    Args:
        agent: owner of the history.
        settings: number and source of the pairs, as in `moments`.
        probing: probes, and the view that they are in.
        memory: holds the pairs' states; they are made again where the process is new.

    Raises:
        InputError: the view or the probes do not fit the base model.
    """
    name, card = agent.history.name, agent.base.card
    if probing.view:
        if hashlib.sha256(probing.view).hexdigest() != probing.digest:
            raise InputError("the view does not match its SHA-256")
        view = View.from_bytes(probing.view, card.layers, card.hidden_size)
        states = _pair_states(agent, settings, memory)
        memory.coordinates[name] = (probing.digest, *view.coordinates(states.personalized, states.neutral))
    digest, p, n = memory.coordinates.get(name, ("", torch.empty(0), torch.empty(0)))
    if digest != probing.digest:
        return Statistics(0, {}, b"")
    probes = probes_from_bytes(probing.probes, card.layers, p.shape[2])
    return Statistics(p.shape[1], {}, sums_to_bytes(*evaluate(p, n, probes)))


def _pair_states(agent: Agent, settings: PairSettings, memory: Memory) -> States:
    """The pairs' states from memory, made again where these settings' are not there."""
    made, states = memory.states.get(agent.history.name, (None, None))
    if made != settings or states is None:
        form = settings.prompt_form
        reader = Reader(agent.base, agent.history.task, form, settings.batch_size, agent.encoder)
        history = agent.shared_history
        states = preference_states(reader, history, settings.items, settings.source, memory.settle)
        memory.states[agent.history.name] = (settings, states)
    check_enough(len(states), "preference pairs")
    return states
