"""No method sees what it must not: golds, others' questions, other targets."""

from dataclasses import replace
from typing import Any, NoReturn

import pytest
from tests.simulation.compare.small_comparison import ALL

from fedperfit.edge.agent.history import History
from fedperfit.simulation.compare.cells import MAIN, SEARCH, Cell, WorkerState, WorkUnit
from fedperfit.simulation.compare.method import registry
from fedperfit.simulation.compare.search import drawn
from fedperfit.simulation.data.participants import Participants, Target

pytestmark = pytest.mark.slow  # for what its tests share, whichever comes first

TASK = "LaMP_2M"


class Sprung(Exception):
    """Something forbidden was looked at."""


class Trap:
    """Fails at whatever is done with it."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise Sprung(name)

    def __spring(self, *args: Any) -> NoReturn:
        raise Sprung

    __iter__ = __len__ = __getitem__ = __str__ = __repr__ = __eq__ = __hash__ = __bool__ = __spring  # type: ignore[assignment]
    __add__ = __radd__ = __contains__ = __format__ = __spring


def trapped(target: Target, *, whole: bool) -> Target:
    """Its golds, and when `whole` all but its name, fail on access."""
    if not whole:
        return replace(target, golds=Trap())  # type: ignore[arg-type]
    own = target.history
    history = History(own.name, own.task, Trap(), Trap(), Trap())  # type: ignore[arg-type]
    return Target(history, Trap(), Trap(), Trap())  # type: ignore[arg-type]


@pytest.fixture
def state(every_method: WorkerState) -> WorkerState:
    """A whole comparison, whose people a test may change."""
    return WorkerState(every_method.folder, every_method.settings)


def armed(state: WorkerState, current: int | None) -> Participants:
    """The people as they are but for traps; `current` keeps history and questions."""
    people = state.participants(TASK)
    targets = [trapped(target, whole=n != current) for n, target in enumerate(people.targets)]
    return replace(people, targets=targets, bounds=Trap())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ALL)
def test_fitting_and_answering_see_one_person_and_the_others(state, monkeypatch, name):
    people = armed(state, 2)
    monkeypatch.setattr(state, "participants", lambda task: people)
    cell = Cell(people.targets[2].history.name, -1)
    before = state.methods[name].sees_targets_before
    if before:
        with pytest.raises(Sprung):
            list(state.do(WorkUnit(TASK, name, MAIN, 0), [cell]))
        return
    (line,) = state.do(WorkUnit(TASK, name, MAIN, 0), [cell])
    assert len(line["answers"]) == 3


@pytest.mark.parametrize("name", [name for name, method in registry().items() if method.space])
def test_the_search_sees_no_target(state, monkeypatch, name):
    values = list(enumerate(drawn(state.methods[name], state.settings.draws)))
    people = armed(state, None)
    monkeypatch.setattr(state, "participants", lambda task: people)
    lines = list(state.do(WorkUnit(TASK, name, SEARCH, 0), values))
    assert len(lines) == len(values)
    assert {line["questions"] for line in lines} == {1}


def test_validating_users_are_no_training_users(state):
    people = state.participants(TASK)
    rest, validating = people.validation(2, 3)
    assert not {r.name for r in rest} & {v.history.name for v in validating}
    for one in validating:
        source = next(other for other in people.others if other.name == one.history.name)
        texts = {item["description"] for item in one.history.items}
        asked = {question.partition("description: ")[2] for question in one.questions}
        assert not texts & asked
        known = {item["description"] for item in source.items}
        known |= {question["input"].partition("description: ")[2] for question in source.answered}
        assert texts | asked <= known
        assert one.history.answered == []


def test_the_published_bug_is_what_makes_the_difference(state):
    """`oppu-as-released` is OPPU for the first target, and trains on that one's items for the second."""
    units = {name: WorkUnit(TASK, name, MAIN, 0) for name in ("oppu", "oppu-as-released")}
    first, second = (Cell(target.history.name, -1) for target in state.participants(TASK).targets[:2])
    context = state.context(TASK, 0)
    assert context.task.name == TASK
    seen = {}
    for name, unit in units.items():
        method = state.methods[name](context, state.chosen(TASK, name))
        targets = [target.history for target in state.participants(TASK).targets]
        if name == "oppu-as-released":
            method.before = targets[:1]
        seen[name] = len(method.pairs(targets[1]))  # type: ignore[attr-defined]
        assert [line["user"] for line in state.do(unit, [first])] == [first.user]
    assert seen == {"oppu": 4, "oppu-as-released": 8}
    assert second.user != first.user
