import json
from dataclasses import replace

import pytest
import torch
from tests.edge.edge_clients import evaluation, write_client

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.history import read_history
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.shift.packing import pack, unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError


@pytest.fixture
def agent(tmp_path, base):
    return Agent(write_client(tmp_path / "client"), base)


@pytest.fixture
def packed(shape, header):
    return pack(Shift.identity(shape, seed=1), header)


def test_contribute_trains_the_collective_shift(agent, packed, header, training):
    outcome = agent.contribute(packed, training)
    shift, kept = unpack(outcome.update)
    assert kept == header
    assert outcome.items == 16
    assert not torch.equal(shift.b, unpack(packed)[0].b)
    assert outcome == agent.contribute(packed, training)


@pytest.mark.parametrize(("items", "told_apart"), [(5, False), (8, True)])
def test_no_order_makes_a_step_of_few_items(tmp_path, base, packed, training, items, told_apart):
    agent = Agent(write_client(tmp_path / "eve", seed="eve", items=items, questions=1), base)
    once = training.replace(epochs=1, batch_size=4)
    updates = [unpack(agent.contribute(packed, once.replace(seed=seed)).update)[0] for seed in range(4)]
    same = [torch.allclose(updates[0].b, other.b, rtol=1e-2, atol=1e-6) for other in updates[1:]]
    assert all(same) is not told_apart


def test_personalize_raises_the_score_of_a_fitted_user(tmp_path, base, packed, personal, training):
    agent = Agent(write_client(tmp_path / "client", items=48, questions=40), base)
    outcome = agent.personalize(packed, personal, training.replace(epochs=6))
    assert outcome.items == 48
    before = agent.evaluate(packed, evaluation("collective"))
    after = agent.evaluate(packed, evaluation("personal"))
    assert after.items == before.items == 40
    assert after.metrics["correct"] > before.metrics["correct"] + 4


def test_an_identity_collective_shift_answers_as_the_base_does(agent, packed):
    base, collective = (agent.evaluate(packed, evaluation(stage)) for stage in ("base", "collective"))
    assert base == collective


def test_the_questions_are_never_trained_on(tmp_path, base, packed, personal, training):
    """Two clients who differ only in their questions keep the same personal shift."""
    shifts = []
    for number, questions in enumerate((2, 8)):
        folder = write_client(tmp_path / str(number), questions=2)
        extra = (folder / "questions.jsonl").read_text().splitlines()
        (folder / "questions.jsonl").write_text("\n".join(extra * questions) + "\n")
        Agent(folder, base).personalize(packed, personal, training)
        shifts.append(Vault(folder / "vault").open("full")[1])
    assert torch.equal(shifts[0].W, shifts[1].W)


def test_max_items_takes_the_latest(tmp_path, base, packed, personal, training):
    agent = Agent(write_client(tmp_path / "all"), base)
    assert agent.personalize(packed, personal, training.replace(max_items=5)).items == 5
    latest = tmp_path / "latest"
    write_client(latest)
    lines = (latest / "history.jsonl").read_text().splitlines()
    (latest / "history.jsonl").write_text("\n".join(lines[-5:]) + "\n")
    Agent(latest, base).personalize(packed, personal, training)
    first, second = (Vault(tmp_path / name / "vault").open("full")[1] for name in ("all", "latest"))
    assert torch.equal(first.W, second.W)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"fingerprint": "x"}, "another base model"), ({"task": "LaMP_3"}, "for task LaMP_3")],
)
def test_a_shift_for_something_else_is_refused(agent, shape, header, training, change, message):
    packed = pack(Shift.identity(shape, seed=1), replace(header, **change))
    with pytest.raises(InputError, match=message):
        agent.contribute(packed, training)


def test_a_personal_shift_is_refused_on_another_release(agent, shape, header, packed, personal, training):
    agent.personalize(packed, personal, training)
    other = pack(Shift.identity(shape, seed=2), header)
    with pytest.raises(InputError, match="belongs to another"):
        agent.evaluate(other, evaluation("personal"))


def test_bad_folders_are_one_line(tmp_path):
    folder = write_client(tmp_path / "client")
    cases = {
        "client.json": ["{", json.dumps({"name": "x"}), json.dumps({"name": "x", "task": "LaMP_9"})],
        "./client.json": [
            json.dumps({"name": "x", "task": "LaMP_2M", "shares_metrics": False, "history": 5}),
            "[1]",
        ],
        "history.jsonl": ["{broken\n", "[1]\n", '"text"\n'],
        "questions.jsonl": ['{"input": 1, "gold": "a"}\n'],
    }
    for name, contents in cases.items():
        good = (folder / name).read_text()
        for content in contents:
            (folder / name).write_text(content)
            with pytest.raises(InputError) as caught:
                read_history(folder)
            assert "\n" not in str(caught.value)
        (folder / name).write_text(good)
    assert read_history(folder).items


def test_a_bad_line_of_a_history_costs_that_line(tmp_path, base):
    folder = write_client(tmp_path / "client")
    whole = read_history(folder)
    path = folder / "history.jsonl"
    path.write_text(f'{{"description": "a film", "tag": "no tag"}}\n{{broken\n{path.read_text()}')
    history = read_history(folder)
    assert history.items == whole.items
    assert [remark.partition("history.jsonl, ")[2].partition(":")[0] for remark in history.remarks] == [
        "line 1",
        "line 2",
    ]
    agent = Agent(folder, base)
    agent.vault.learn([{"description": "kept by an earlier version", "tag": 3}])
    assert agent.read().items == whole.items
