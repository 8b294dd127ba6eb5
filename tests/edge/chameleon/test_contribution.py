"""An agent's statistics of its preference pairs, and what it keeps meanwhile."""

import hashlib

import pytest
import torch
from tests.edge.edge_clients import write_client

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.statistics import TooFewPairs
from fedperfit.edge.chameleon.contribution import Memory, Probing, moments, probe
from fedperfit.protocol.messages.settings import FEWEST_PAIRS, PairSettings
from fedperfit.protocol.messages.statistics import View, moments_from_bytes, to_bytes
from fedperfit.protocol.shift.probe import Frame
from fedperfit.protocol.system.errors import InputError

SETTINGS = PairSettings(items=6, source="contrast", batch_size=8, prompt_form="lamp")


@pytest.fixture(scope="module")
def agents(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    people = [write_client(folder / name, "LaMP_4", seed=name, items=8) for name in ("ada", "ben")]
    return [Agent(person, base) for person in people]


def asked(agents, memory) -> Probing:
    """Probes in the frame of these agents, the view with them."""
    card = agents[0].base.card
    told = [moments(agent, SETTINGS, memory) for agent in agents]
    found = [moments_from_bytes(one.data, one.items, card.layers, card.hidden_size) for one in told]
    view = View.of(Frame.of(found))
    data = view.to_bytes()
    probes = torch.randn(card.layers, view.axes.shape[1] + 1, 2)
    return Probing(to_bytes(probes), hashlib.sha256(data).hexdigest(), data)


def test_nothing_is_on_disk_and_what_was_lost_is_made_again(agents, tmp_path):
    memory = Memory()
    first = asked(agents, memory)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    sums = probe(agents[0], SETTINGS, first, memory)
    assert sums.items == 6
    known = Probing(first.probes, first.digest, b"")
    assert probe(agents[0], SETTINGS, known, memory) == sums
    memory.forget(agents[0].history.name)
    assert probe(agents[0], SETTINGS, known, memory).data == b""
    assert probe(agents[0], SETTINGS, first, memory) == sums
    assert probe(agents[0], SETTINGS, known, Memory()).items == 0
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_moments_forget_the_view_of_the_search_before(agents):
    memory = Memory()
    first = asked(agents, memory)
    probe(agents[0], SETTINGS, first, memory)
    moments(agents[0], SETTINGS, memory)
    assert probe(agents[0], SETTINGS, Probing(first.probes, first.digest, b""), memory).data == b""


def test_few_pairs_are_not_told_of(base, tmp_path):
    agent = Agent(write_client(tmp_path / "one", "LaMP_4", items=FEWEST_PAIRS - 1), base)
    with pytest.raises(TooFewPairs, match="3 preference pairs, at least 4 are needed"):
        moments(agent, SETTINGS, Memory())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"view": b"x"}, "does not match its SHA-256"),
        ({"view": b"x", "digest": hashlib.sha256(b"x").hexdigest()}, "does not fit 8 layers of 192"),
        ({"probes": b"x"}, "bytes of statistics"),
        ({"probes": b""}, "bytes of statistics"),
    ],
)
def test_what_does_not_fit_is_refused(agents, changed, reason):
    memory = Memory()
    with pytest.raises(InputError, match=reason):
        probe(agents[0], SETTINGS, Probing(**{**vars(asked(agents, memory)), **changed}), memory)
