"""Whose shift is it? Each of 1,000 names gives a start; the shift is compared with all of them.

A shift that was found (on a lost disk, in a backup) must not tell whom it belongs to.
"""

from statistics import mean

import pytest
import torch
from tests.edge.deployment.deployments import PERSONAL, TRAINING, deployed
from tests.edge.edge_clients import write_client

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.protocol.model.base_model import EMBEDDED, load
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.seeds import seed_from

_NAMES = 1_000
_DRAWS = 30


@pytest.fixture(scope="module")
def base():
    return load(EMBEDDED, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def release(base):
    shape = ShiftShape(
        layers=(3, 4), rank=4, hidden_size=base.card.hidden_size, positions=Positions.parse("l7")
    )
    header = ShiftHeader(shape=shape, task="LaMP_2M", fingerprint=base.card.fingerprint, round=0)
    return OpenedRelease.of(pack(Shift.identity(shape, seed=1), header), base)


@pytest.fixture
def folder(tmp_path, monkeypatch, base):
    monkeypatch.setattr("fedperfit.edge.deployment.deployed.load", lambda *name, **how: base)
    return write_client(tmp_path / "ada")


def rank_of(name: str, shift: Shift) -> int:
    """Where the true name comes among the names by how well its start fits the shift; 1 is first."""
    names = [name, *(f"targets-{number}" for number in range(100_000, 100_000 + _NAMES - 1))]
    fits = []
    for other in names:
        start = PersonalShift.start(shift.shape, seed=seed_from(f"{TRAINING.seed}/{other}"))
        fits.append(float((shift.R.detach() * start.R.detach()).sum()))
    return 1 + sum(fit > fits[0] for fit in fits[1:])


def test_a_start_by_name_tells_the_name_after_training(base, folder, release):
    agent = Agent(folder, base)
    agent.personalize(pack(release.shift, release.header), PERSONAL, TRAINING)
    (slot,) = agent.vault.slots()
    assert rank_of(agent.history.name, agent.vault.open(slot)[1]) == 1


def test_a_deployed_edges_start_tells_nothing(folder, release):
    with deployed(folder) as edge:
        name = edge.agent.history.name
        edge.agent.personalize(pack(release.shift, release.header), PERSONAL, TRAINING)
        (slot,) = edge.agent.vault.slots()
        ranks = [rank_of(name, edge.agent.vault.open(slot)[1])]
    for _ in range(_DRAWS):
        with deployed(folder) as edge:
            ranks.append(rank_of(name, edge.agent.personal_job(release, PERSONAL, TRAINING).shift))
    assert _NAMES / 4 < mean(ranks) < 3 * _NAMES / 4, ranks


def test_a_fit_and_what_it_is_judged_against_begin_alike(folder, release):
    with deployed(folder) as edge:
        one, other = (edge.agent.personal_job(release, PERSONAL, TRAINING).shift for _ in range(2))
        assert torch.equal(one.R, other.R)
