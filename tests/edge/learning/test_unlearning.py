"""Unlearned items leave nothing at the edge: the new shift is that of somebody who never learned them."""

import pytest
import torch
from tests.edge.edge_clients import write_client

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.learning.renewal import learn, renew
from fedperfit.edge.learning.unlearning import unlearn
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError


@pytest.fixture
def release(base, header) -> OpenedRelease:
    return OpenedRelease.of(pack(Shift.identity(header.shape, seed=1), header), base)


def taught(folder, base, release, personal, training, new: int) -> Agent:
    """Somebody who was fitted on a release, and learned so many items of two or more that are the same."""
    agent = Agent(write_client(folder, items=24), base)
    renew(agent, release, 1, personal, training)
    items = [dict(agent.history.items[number]) for number in range(new)]
    for number, item in enumerate(items):
        learn(agent, [item | {"description": f"{item['description']} {number}"}], release, personal)
    return agent


def shifts(agent: Agent) -> dict[str, tuple[torch.Tensor, ...]]:
    opened = {slot: agent.vault.open(slot)[1] for slot in agent.vault.slots()}
    return {slot: (shift.R, shift.W, shift.b) for slot, shift in opened.items()}


def test_the_shift_is_that_of_somebody_who_never_learned_the_item(
    tmp_path, base, release, personal, training
):
    agent = taught(tmp_path / "a", base, release, personal, training, new=3)
    kept, before = agent.vault.learned(), shifts(agent)["full"]
    assert unlearn(agent, [3, 2], release, 1)
    assert float((shifts(agent)["full"][1] - before[1]).detach().abs().max()) > 1e-3
    assert agent.vault.learned() == kept[:1]
    other = Agent(write_client(tmp_path / "b", items=24), base)
    learn(other, kept[:1], None, personal)
    renew(other, release, 1, personal, training)
    assert shifts(agent).keys() == shifts(other).keys() == {"full", "full-held-out"}
    for slot, tensors in shifts(other).items():
        for ours, theirs in zip(shifts(agent)[slot], tensors, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6), "up to what batches round"


@pytest.mark.parametrize("number", [0, 2, -1])
def test_a_number_that_is_none_changes_nothing(tmp_path, base, release, personal, training, number):
    agent = taught(tmp_path, base, release, personal, training, new=1)
    before, kept = shifts(agent), agent.vault.learned()
    with pytest.raises(InputError, match=f"item {number}: there is none; 1 item in all"):
        unlearn(agent, [1, number], release, 1)
    assert agent.vault.learned() == kept
    assert torch.equal(shifts(agent)["full"][1], before["full"][1])


def test_a_kill_before_the_items_are_gone_leaves_no_shift_that_knows_them(
    tmp_path, base, release, personal, training, monkeypatch
):
    agent = taught(tmp_path, base, release, personal, training, new=1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Vault, "unlearn", killed)
        with pytest.raises(KeyboardInterrupt):
            unlearn(agent, [1], release, 1)
    assert agent.vault.slots() == []
    assert not unlearn(agent, [1], release, 1), "whose settings went with it"
    assert agent.vault.learned() == []


def test_without_a_release_or_a_shift_the_items_go_all_the_same(tmp_path, base, personal):
    agent = Agent(write_client(tmp_path), base)
    learn(agent, [dict(agent.history.items[0])] * 2, None, personal)
    assert not unlearn(agent, [1, 1], None, 0)
    assert len(agent.vault.learned()) == 1
