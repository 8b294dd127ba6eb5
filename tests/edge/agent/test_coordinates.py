"""A round in a frozen basis, as an agent answers it."""

import pytest
import torch
from tests.edge.edge_clients import write_client

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.basis_file import BASIS, CoordinateRequest
from fedperfit.edge.agent.coordinates import contribute_coordinates
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.protocol.messages.settings import CoordinateSettings
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.coordinate_packing import Agreement, pack_coordinates, unpack_update
from fedperfit.protocol.system.errors import InputError


@pytest.fixture(scope="module")
def cache(base):
    return ItemCache(base)


@pytest.fixture
def agents(tmp_path, base, cache):
    return [
        Agent(write_client(tmp_path / name, seed=name, items=4, questions=1), base, cache)
        for name in ("ada", "bea")
    ]


def basis_for(base, shape, **changes):
    about = {"task": "LaMP_2M", "fingerprint": base.card.fingerprint, "seed": 0}
    return random_basis(shape, 5, **about | changes)


def request(basis, *, codec="sign", sent=True, digest=None):
    wanted = CoordinateSettings(basis=digest or basis.digest, codec=codec)
    start = Coordinates.of(basis, 0.01 * torch.ones(basis.numbers))
    packed = pack_coordinates(start, Agreement(basis.digest, codec, 1))
    return CoordinateRequest(packed, wanted, basis.to_bytes() if sent else b"")


def test_an_update_is_what_the_engine_changed(base, shape, training, cache, agents):
    basis = basis_for(base, shape)
    results = list(contribute_coordinates(agents, request(basis, codec="float32"), training, cache))
    assert [agent for agent, _ in results] == agents
    for agent, outcome in results:
        own = Coordinates.of(basis, 0.01 * torch.ones(basis.numbers))
        before = own.numbers
        pairs = agent.history.pairs(training.prompt_form, 0)
        fit([FitJob(own, encode(base, pairs), f"0/{agent.history.name}/1")], training, cache)
        change = unpack_update(outcome.update, Agreement(basis.digest, "float32", 1), basis.numbers)
        torch.testing.assert_close(change, own.numbers - before, rtol=1e-3, atol=1e-6)
        assert (outcome.items, outcome.metrics["loss"] > 0) == (4, True)


@pytest.mark.parametrize(("items", "told_apart"), [(5, False), (7, False), (8, True)])
def test_no_order_makes_a_step_of_few_items(base, shape, training, cache, tmp_path, items, told_apart):
    """A single step of all items is the same in any order; with eight there are two, and the order tells."""
    agent = Agent(write_client(tmp_path / "eve", seed="eve", items=items, questions=1), base, cache)
    once = training.replace(epochs=1, batch_size=4)
    basis = basis_for(base, shape)
    updates = []
    for seed in (0, 1):
        asked = request(basis, codec="float32")
        ((_, outcome),) = contribute_coordinates([agent], asked, once.replace(seed=seed), cache)
        updates.append(unpack_update(outcome.update, Agreement(basis.digest, "float32", 1), basis.numbers))
    assert torch.allclose(*updates, rtol=1e-2, atol=1e-5) is not told_apart


def test_the_basis_is_kept_and_asked_for_where_it_is_lacking(base, shape, training, cache, agents, tmp_path):
    basis = basis_for(base, shape)
    (_, lacking), _ = contribute_coordinates(agents, request(basis, sent=False), training, cache)
    assert (lacking.items, lacking.update, lacking.metrics) == (0, b"", {})
    (_, first), _ = contribute_coordinates(agents, request(basis), training, cache)
    assert (tmp_path / "ada" / BASIS).read_bytes() == basis.to_bytes()
    again = [Agent(tmp_path / "ada", base, cache)]
    ((_, second),) = contribute_coordinates(again, request(basis, sent=False), training, cache)
    assert first.update == second.update
    assert len(first.update) <= 64
    other = basis_for(base, shape, seed=1)
    ((_, lost),) = contribute_coordinates(again, request(other, sent=False), training, cache)
    assert lost.update == b""


def test_a_basis_for_something_else_is_refused(base, shape, training, cache, agents):
    bad = {
        "another base model": request(basis_for(base, shape, fingerprint="0" * 64)),
        "for task LaMP_3": request(basis_for(base, shape, task="LaMP_3")),
        "does not match its digest": request(basis_for(base, shape), digest="0" * 64),
    }
    for reason, asked in bad.items():
        for _, refused in contribute_coordinates(agents, asked, training, cache):
            assert isinstance(refused, InputError)
            assert reason in str(refused)
