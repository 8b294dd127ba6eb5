"""CHAMELEON's rows, the choice between it and PerFit, and PerFit with layers chosen by gradients."""

from dataclasses import replace

import pytest
import torch
from tests.simulation.compare.small_comparison import run_all, started

from fedperfit.edge.chameleon import pairs
from fedperfit.edge.chameleon.pairs import Reader, selected
from fedperfit.edge.engine.layer_gradients import layer_gradient
from fedperfit.edge.fitting.choice import Choice
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.selection import select_layers
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json_lines
from fedperfit.simulation.compare.cells import MAIN, WorkerState, WorkUnit
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.compare.method import registry
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.compare.study import extend
from fedperfit.simulation.data.participants import Participants
from fedperfit.simulation.study_folder import SETTINGS

METHODS = registry()
VALUES = {"items": 4, "identify": "hybrid", "probe": "low-rank", "edited": 2, "shown": False}
SHIFT = {"layers": "middle", "positions": "l7", "rank": 4, "epochs": 1, "learning-rate": 5e-3}
OWN = {"personal-rank": 2, "personal-epochs": 2, "personal-learning-rate": 5e-3}


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> WorkerState:
    return started(tmp_path_factory.mktemp("chameleon") / "run", world_history=8, collective_items=6)


def made(name: str, context: MethodContext, people: Participants, **values: object):
    method = METHODS[name](context, VALUES | values)
    method.learn(people.others)
    return method


def test_the_unseen_get_what_the_group_has_without_them(context, people):
    group, unseen = (made(name, context, people) for name in ("chameleon-group", "chameleon-unseen"))
    target = people.targets[0]
    nobody = replace(target.history, items=[])
    (_, of_nobody), (_, of_unseen) = group.fit(nobody), unseen.fit(target.history)
    assert torch.equal(of_nobody.neutral, of_unseen.neutral)
    assert not torch.equal(group.fit(target.history)[1].neutral, of_unseen.neutral)
    assert unseen.parameters((None, of_unseen)) == 0
    assert unseen.bytes_down() == len(of_unseen.to_bytes())


def test_without_items_a_person_is_answered_by_the_bare_model(context, people):
    own, base = made("chameleon", context, people), METHODS["base"](context, {})
    target = people.targets[0]
    nobody = replace(target.history, items=[])
    assert own.answer(own.fit(nobody), target.questions) == base.answer(base.fit(nobody), target.questions)


def test_items_are_selected_once_for_a_fit_and_once_for_a_search(
    context, people, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    read: list[int] = []

    def embeddings(self: Reader, texts: list[str]) -> torch.Tensor:
        read.append(len(texts))
        return pairs.embeddings(self.base, texts)

    monkeypatch.setattr(Reader, "embeddings", embeddings)
    history = people.targets[0].history
    made("chameleon", context, people, shown=True).fit(history)
    assert len(read) == 1
    searching = replace(context, folder=tmp_path, most_pairs=8)
    for shown in (False, True):
        fitted = made("chameleon", searching, people, shown=shown).fit(history)
        assert fitted[0] == (selected(made("chameleon", context, people).reader, history, 4) if shown else [])
    assert len(read) == 3, "one of them by this test"


def test_an_edit_leaves_the_model_as_it_was(context, people):
    own = made("chameleon", context, people, edited=4)
    target = people.targets[0]
    before = {name: value.clone() for name, value in context.base.model.state_dict().items()}
    first = own.answer(own.fit(target.history), target.questions)
    assert own.answer(own.fit(target.history), target.questions) == first
    assert all(torch.equal(value, before[name]) for name, value in context.base.model.state_dict().items())


def test_who_has_nothing_gets_what_suits_the_others_and_says_which(context, people):
    cold = METHODS["perfit-chameleon"](context, SHIFT | OWN | {"identify": "hybrid", "edited": 1})
    cold.learn(people.others)
    nobody = replace(people.targets[0].history, items=[])
    name, intervention = cold.fit(nobody)
    assert name in ("collective", "directions")
    assert len(intervention.shifts) == 1
    assert (intervention.directions is not None) == (name == "directions")
    assert cold.parameters((name, intervention)) == 0


def test_a_personal_shift_is_usual_where_there_are_items(context, people, monkeypatch):
    cold = METHODS["perfit-chameleon"](context, SHIFT | OWN | {"identify": "hybrid", "edited": 1})
    cold.learn(people.others)
    target = people.targets[0]
    monkeypatch.setattr(
        "fedperfit.simulation.compare.methods.perfit_chameleon.choose",
        lambda base, examples, candidates, usual: Choice(usual, {}),
    )
    fitted = cold.fit(target.history)
    full = METHODS["perfit"](context, SHIFT | OWN)
    full.learn(people.others)
    assert fitted[0] == "personal"
    assert cold.answer(fitted, target.questions) == full.answer(full.fit(target.history), target.questions)
    assert cold.parameters(fitted) == full.parameters(full.fit(target.history))


def test_layers_and_ranks_are_those_of_the_others_pulls(context, people):
    auto = METHODS["perfit-auto"](context, {})
    auto.learn(people.others)
    layer_gradients = [
        layer_gradient(context.base, context.pairs(other), Positions.parse("l7"))
        for other in context.collective_histories(people.others)
    ]
    chosen = select_layers(layer_gradients)
    assert auto.values["layers"] == list(chosen.layers)
    assert auto.values["rank"] == chosen.rank >= auto.values["personal-rank"]
    assert auto.shared.shape.layers == chosen.layers


def test_rows_and_seeds_are_added_to_what_is_there(tmp_path):
    state = started(tmp_path / "run", methods=["base", "majority-user"])
    run_all(state)
    path = state.folder / WorkUnit("LaMP_2M", "base", MAIN, 0).file
    before = path.read_bytes()
    with pytest.raises(InputError, match="unknown method 'nonsense'"):
        extend(state.folder, ["nonsense"], [])
    extend(state.folder, ["majority-global", "base"], [3])
    run_all(WorkerState(state.folder, CompareSettings.from_file(state.folder / SETTINGS)))
    assert path.read_bytes() == before
    for name in ("base", "majority-user", "majority-global"):
        for seed in (0, 3):
            assert len(read_json_lines(state.folder / WorkUnit("LaMP_2M", name, MAIN, seed).file)) == 3
