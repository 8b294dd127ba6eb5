"""Attacks on the smallest scale: controls come out right, the gate holds, and a broken guard fails it."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from fedperfit.edge.consent.guard import Guard
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.audit.attack import Role, attacks_by_name
from fedperfit.simulation.audit.attacks.stolen_items import likelihoods
from fedperfit.simulation.audit.figures import area
from fedperfit.simulation.audit.gate import Regression, check, read_result, stored_gate
from fedperfit.simulation.audit.ground import Ground
from fedperfit.simulation.audit.settings import AuditSettings
from fedperfit.simulation.audit.study import begin, run_audit
from fedperfit.simulation.world.build import write_world
from fedperfit.simulation.world.settings import WorldSize

STORED = Path(__file__).with_name("gate.json")
"""The stored result: `fedperfit audit OUT --attacks inversion,owner-name`, with the settings it holds."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(stored_gate(STORED), tmp_path_factory.mktemp("ground"))


def audited(folder: Path, *attacks: str) -> dict[str, Any]:
    begin(folder, stored_gate(STORED).replace(attacks=list(attacks)))
    return run_audit(folder, lambda event: None)


def stored(*attacks: str) -> dict[str, Any]:
    result = read_result(STORED)
    return result | {"attacks": {name: result["attacks"][name] for name in attacks}}


def test_the_gate_holds(tmp_path: Path) -> None:
    controls = {
        "inversion": "one item, without policy and codec",
        "owner-name": "start made of the name alone",
    }
    result = audited(tmp_path / "audit", *controls)
    check(result, stored(*controls))
    for name, control in controls.items():
        assert result["attacks"][name]["conditions"][control]["first"]["value"] == 1.0


def test_people_of_data_are_of_both_groups_and_have_items_enough(tmp_path: Path) -> None:
    size = WorldSize(others=3, targets=2, new=1, history=6, questions=1)
    data = write_world(tmp_path / "world", TASKS["LaMP_2M"], size, seed=0)
    settings = AuditSettings.read("quickstart", {"data": str(data), "items": 3, "others": 4})
    ground = Ground(settings, tmp_path / "audit")
    assert ground.names == ["other-0", "other-1", "other-2", "target-0"]
    with pytest.raises(InputError, match="0 of 5 people have 8 items"):
        _ = Ground(settings.replace(items=4), tmp_path / "audit").people


def test_a_guard_that_lets_greedy_requests_pass_fails_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guard, "coordinates", lambda self, coordinates, training, pairs: 1)
    with pytest.raises(Regression, match="one item, asked under the policy"):
        check(audited(tmp_path / "audit", "inversion"), stored("inversion"))


def test_an_edge_without_a_secret_fails_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedperfit.simulation.audit import edges

    agent = edges.Agent
    monkeypatch.setattr(edges, "Agent", lambda *arguments, salt="": agent(*arguments))
    with pytest.raises(Regression, match="start under the edge's secret"):
        check(audited(tmp_path / "audit", "owner-name"), stored("owner-name"))


def test_all_attacks_of_the_issue_are_there() -> None:
    assert list(attacks_by_name()) == [
        *("canary-text", "dp-mechanism", "inversion", "items-in-updates"),
        *("linkage", "owner-name", "preference", "stolen-items"),
    ]


def test_an_update_of_one_item_names_it(ground: Ground) -> None:
    attack = attacks_by_name()["items-in-updates"](ground)
    (one,) = attack.trials(next(subject for subject in attack.subjects() if subject.startswith("one/")))
    assert area(one.scores, one.truths) == 1.0


def test_who_took_no_part_is_held_against_an_update_beside_decoys_of_both_kinds(ground: Ground) -> None:
    attack = attacks_by_name()["items-in-updates"](ground)
    trials = attack.trials(next(subject for subject in attack.subjects() if subject.startswith("1/")))
    nulls = [each for each in trials if attack.conditions()[each.condition] is Role.NULL]
    assert [each.condition.rpartition(", ")[2] for each in nulls] == ["own decoys", "others' decoys"]
    assert ground.names[0] in {each.user for each in trials} - {each.user for each in nulls}
    assert all(2 * sum(each.truths) == len(each.scores) for each in nulls)


def test_losses_are_those_of_a_fit_to_the_items(ground: Ground) -> None:
    examples = ground.examples(ground.people[0].items)
    (shift,) = ground.personal([examples[:4]], seed="losses", epochs=20)
    bare, fitted = ground.losses([ground.bare, shift], examples)
    assert float((bare - fitted)[:4].min()) > 0
    torch.testing.assert_close(ground.losses([shift], examples[2:3])[0, 0], fitted[2], rtol=1e-4, atol=1e-5)


def test_likelihoods_find_items_by_what_shadows_show() -> None:
    """Items are hard or easy by themselves, and a little easier when they are used."""
    draw, rng = torch.Generator().manual_seed(0), random.Random(0)
    hard = torch.rand(200, generator=draw) * 4
    halves = [set(rng.sample(range(200), 100)) for _ in range(9)]
    used = torch.tensor([[n in half for n in range(200)] for half in halves])
    losses = hard - 0.5 * used + 0.2 * torch.randn(9, 200, generator=draw)
    scores = likelihoods(losses[0], losses[1:], halves[1:])
    truths = used[0].tolist()
    assert area(scores, truths) > 0.85 > area((-losses[0]).tolist(), truths) + 0.15


def test_a_preset_gives_what_concerns_the_federation_alone() -> None:
    settings = AuditSettings.read("quickstart", {"items": 8})
    assert (settings.collective_rank, settings.items, settings.others) == (8, 8, 40)
