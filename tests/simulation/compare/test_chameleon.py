"""CHAMELEON's rows, the choice between it and PerFit, and PerFit with what pulls chose."""

from dataclasses import replace

import pytest
import torch
from tests.simulation.compare.small_comparison import begun, run_all

from fedperfit.edge.agent.choice import Choice
from fedperfit.edge.engine.layer_gradients import pull
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.selection import places
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, read_json_lines
from fedperfit.simulation.compare.cells import MAIN, Lot, Workshop
from fedperfit.simulation.compare.context import Bench
from fedperfit.simulation.compare.method import registry
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.compare.study import SETTINGS, extend
from fedperfit.simulation.data.participants import Cast

METHODS = registry()
VALUES = {"items": 4, "identify": "hybrid", "probe": "low-rank", "edited": 2, "shown": False}
SHIFT = {"layers": "middle", "positions": "l7", "rank": 4, "epochs": 1, "learning-rate": 5e-3}
OWN = {"personal-rank": 2, "personal-epochs": 2, "personal-learning-rate": 5e-3}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Workshop:
    return begun(tmp_path_factory.mktemp("chameleon") / "run", world_history=8, collective_items=6)


@pytest.fixture(scope="module")
def bench(shop) -> Bench:
    return shop.bench("LaMP_2M", 0)


@pytest.fixture(scope="module")
def people(shop) -> Cast:
    return shop.cast("LaMP_2M")


def made(name: str, bench: Bench, people: Cast, **values: object):
    method = METHODS[name](bench, VALUES | values)
    method.learn(people.others)
    return method


def test_the_unseen_get_what_the_group_has_without_them(bench, people):
    group, unseen = (made(name, bench, people) for name in ("chameleon-group", "chameleon-unseen"))
    target = people.targets[0]
    nobody = replace(target.history, items=[])
    (_, of_nobody), (_, of_unseen) = group.fit(nobody), unseen.fit(target.history)
    assert torch.equal(of_nobody.neutral, of_unseen.neutral)
    assert not torch.equal(group.fit(target.history)[1].neutral, of_unseen.neutral)
    assert unseen.parameters((None, of_unseen)) == 0
    assert unseen.bytes_down() == len(of_unseen.to_bytes())


def test_without_items_a_person_is_answered_by_the_bare_model(bench, people):
    own, base = made("chameleon", bench, people), METHODS["base"](bench, {})
    target = people.targets[0]
    nobody = replace(target.history, items=[])
    assert own.answer(own.fit(nobody), target.questions) == base.answer(base.fit(nobody), target.questions)


def test_an_edit_leaves_the_model_as_it_was(bench, people):
    own = made("chameleon", bench, people, edited=4)
    target = people.targets[0]
    before = {name: value.clone() for name, value in bench.base.model.state_dict().items()}
    first = own.answer(own.fit(target.history), target.questions)
    assert own.answer(own.fit(target.history), target.questions) == first
    assert all(torch.equal(value, before[name]) for name, value in bench.base.model.state_dict().items())


def test_who_has_nothing_gets_what_suits_the_others_and_says_which(bench, people):
    cold = METHODS["perfit-chameleon"](bench, SHIFT | OWN | {"identify": "hybrid", "edited": 1})
    cold.learn(people.others)
    nobody = replace(people.targets[0].history, items=[])
    name, acting = cold.fit(nobody)
    assert name in ("collective", "directions")
    assert len(acting.shifts) == 1
    assert (acting.directions is not None) == (name == "directions")
    assert cold.parameters((name, acting)) == 0


def test_a_personal_shift_is_usual_where_there_are_items(bench, people, monkeypatch):
    cold = METHODS["perfit-chameleon"](bench, SHIFT | OWN | {"identify": "hybrid", "edited": 1})
    cold.learn(people.others)
    target = people.targets[0]
    monkeypatch.setattr(
        "fedperfit.simulation.compare.methods.perfit_chameleon.choose",
        lambda base, examples, ways, usual: Choice(usual, {}),
    )
    fitted = cold.fit(target.history)
    full = METHODS["perfit"](bench, SHIFT | OWN)
    full.learn(people.others)
    assert fitted[0] == "personal"
    assert cold.answer(fitted, target.questions) == full.answer(full.fit(target.history), target.questions)
    assert cold.parameters(fitted) == full.parameters(full.fit(target.history))


def test_layers_and_ranks_are_those_of_the_others_pulls(bench, people):
    auto = METHODS["perfit-auto"](bench, {})
    auto.learn(people.others)
    pulls = [
        pull(bench.base, bench.pairs(other), Positions.parse("l7"))
        for other in bench.collective_histories(people.others)
    ]
    chosen = places(pulls)
    assert auto.values["layers"] == list(chosen.layers)
    assert auto.values["rank"] == chosen.rank >= auto.values["personal-rank"]
    assert auto.shared.shape.layers == chosen.layers


def test_rows_and_seeds_are_added_to_what_is_there(tmp_path):
    shop = begun(tmp_path / "run", methods=["base", "majority-user"])
    run_all(shop)
    path = shop.folder / Lot("LaMP_2M", "base", MAIN, 0).file
    before = path.read_bytes()
    with pytest.raises(InputError, match="unknown method 'nonsense'"):
        extend(shop.folder, ["nonsense"], [])
    extend(shop.folder, ["majority-global", "base"], [3])
    run_all(Workshop(shop.folder, CompareSettings.from_flat(read_json(shop.folder / SETTINGS))))
    assert path.read_bytes() == before
    for name in ("base", "majority-user", "majority-global"):
        for seed in (0, 3):
            assert len(read_json_lines(shop.folder / Lot("LaMP_2M", name, MAIN, seed).file)) == 3
