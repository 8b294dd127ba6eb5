"""The random search: the same budget for all, the same draws in every run, the best one kept."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulation.compare.small_comparison import run_all, started

from fedperfit.edge.agent.history import History
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.compare.building_blocks.shifts import RATES
from fedperfit.simulation.compare.cells import SEARCH, WorkUnit
from fedperfit.simulation.compare.method import LogUniform, Method, registry
from fedperfit.simulation.compare.search import best, drawn, goodness
from fedperfit.simulation.compare.study import needs, plan
from fedperfit.simulation.compare.workers import Line, do_pieces, pieces
from fedperfit.simulation.data.participants import ENOUGH_QUESTIONS, Participants

SEARCHED = [method for method in registry().values() if method.space]


@pytest.mark.parametrize("method", SEARCHED, ids=lambda method: method.name)
def test_draws_lie_in_the_space_and_are_the_same_again(method: type[Method]):
    draws = drawn(method, 20)
    assert draws == drawn(method, 20)
    every = math.prod(math.inf if isinstance(c, LogUniform) else len(c) for c in method.space.values())
    assert len(draws) == min(20, every)
    assert len({repr(values) for values in draws}) == len(draws)
    for values in draws:
        assert list(values) == list(method.space)
        for name, choices in method.space.items():
            if isinstance(choices, LogUniform):
                assert choices.low * 0.99 <= values[name] <= choices.high * 1.01
            else:
                assert values[name] in choices


def test_trained_methods_search_the_same_rates():
    for method in SEARCHED:
        rates = [c for name, c in method.space.items() if name.endswith("learning-rate")]
        assert rates == [RATES] * len(rates)
        assert rates or method.builds_on or method.family.name in ("PROMPT", "STEERING")


def test_rates_are_spread_evenly_over_orders_of_magnitude():
    rates = [values["learning-rate"] for values in drawn(registry()["lora-c"], 400)]
    middle = math.sqrt(RATES.low * RATES.high)
    assert 0.4 < sum(rate < middle for rate in rates) / len(rates) < 0.6


@given(st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(math.nan)), min_size=1, max_size=20))
def test_the_best_is_the_highest_and_first(scores):
    log = [{"draw": n, "values": {"n": n}, "score": score} for n, score in enumerate(scores)]
    finite = [score for score in scores if score == score]
    expected = scores.index(max(finite)) if finite else 0
    assert best(log[::-1]) == {"n": expected}


def test_goodness_is_larger_for_better_answers():
    assert goodness(TASKS["LaMP_2M"], ["comedy", "x"], ["comedy", "action"]) == (1.0, 2)
    assert goodness(TASKS["LaMP_3"], ["1", "5"], ["2", "5"]) == (-1.0, 2)
    good, asked = goodness(TASKS["LaMP_4"], ["a bridge", ""], ["a bridge", "b"])
    assert (good, asked) == (1.0, 2)


def test_values_of_another_comparison_are_taken_over(tmp_path):
    first = started(tmp_path / "first", methods=["perfit-stage2-p"], draws=2)
    run_all(first)
    taken = {"methods": ["perfit-stage2-p", "loreft"], "draws": 2, "users": 2, "history_lengths": [1]}
    second = started(tmp_path / "second", **taken, values_of=str(first.folder))
    left = {str(unit): len(second.left(unit)) for unit in plan(second) if unit.kind == SEARCH}
    assert left.pop("LaMP_2M loreft search") == 2
    assert set(left.values()) == {0}
    assert second.chosen("LaMP_2M", "perfit-stage2-p") == first.chosen("LaMP_2M", "perfit-stage2-p")
    log = first.folder / WorkUnit("LaMP_2M", "perfit-stage2-p", SEARCH, 0).file
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    third = started(tmp_path / "third", **taken, values_of=str(first.folder))
    assert {len(third.left(unit)) for unit in plan(third) if "stage2-p search" in str(unit)} == {2}
    for changed, reason in (
        ({"draws": 3}, "its draws is 2"),
        ({"prompt_form": "oppu"}, "its prompt-form"),
        ({"methods": ["lora-p"]}, "no search that this comparison needs"),
    ):
        with pytest.raises(InputError, match=reason):
            started(tmp_path / "other", **taken | changed, values_of=str(first.folder))
    with pytest.raises(InputError, match="holds no comparison"):
        started(tmp_path / "other", **taken, values_of=str(tmp_path / "nowhere"))
    assert not (tmp_path / "other" / "settings.json").exists()


@pytest.mark.parametrize(
    ("task", "items", "answered", "expected"),
    [("LaMP_7", 9, 1, 20), ("LaMP_2M", 100, 0, 5), ("LaMP_3", 12, 8, 16)],
)
def test_where_users_have_few_questions_more_of_them_validate(task, items, answered, expected):
    about = TASKS[task]
    past = [{"id": str(n), "input": f"{about.instruction}{n}", "gold": "1"} for n in range(answered)]
    own = [{about.field: str(n), about.answer: "1"} for n in range(items)]
    others = [History(f"u{n}", about, own, past) for n in range(40)]
    rest, held = Participants(about, others, [], {}).validation(0, 16)
    assert (len(held), len(rest)) == (expected, 40 - expected)
    asked = sum(len(target.questions) for target in held)
    assert asked >= ENOUGH_QUESTIONS or len(held) == 20
    assert asked - len(held[-1].questions) < ENOUGH_QUESTIONS
    with pytest.raises(InputError, match="too few to validate"):
        Participants(about, others[:1], [], {}).validation(0, 16)


def test_draws_of_one_search_are_pieces_of_their_own_and_units_wait_for_all(tmp_path):
    tried = {"values": {}, "score": 0.0, "questions": 1, "seconds": 1.0}
    state = started(tmp_path, methods=["perfit-stage2-p"], draws=3)
    units = plan(state)
    work = pieces(state, units)
    searched = [piece for piece in work if piece.unit.kind == SEARCH]
    assert [(piece.unit.method, piece.draw) for piece in searched] == [
        (unit.method, draw) for unit in units if unit.kind == SEARCH for draw in range(3)
    ]
    assert [piece.unit for piece in work if piece.draw is None] == [u for u in units if u.kind != SEARCH]
    asked, made = {}, {}

    class Recording:
        """Workers that do nothing and note what each piece waits for, and makes."""

        def __len__(self):
            return 2

        def work(self, pieces, payload, *, needs, makes):
            for piece in pieces:
                asked[piece], made[piece] = needs(piece), makes(piece)
                assert [draw for draw, _ in payload(piece).left] == [piece.draw]
                yield piece, Line(tried | {"draw": piece.draw}, 1.0, {})

    do_pieces(state, searched, lambda unit: needs(state, unit), Recording(), lambda unit, seconds: None)
    last = searched[-1]
    assert asked[last] == [one for one in searched if one.unit.method != last.unit.method]
    learned = [made[piece] for piece in searched]
    assert len({*learned[:3]}) == 3, "each draw of the first stage learns a collective shift of its own"
    assert len({*learned[3:]} - {*learned[:3]}) == 1, "all later draws take the one that was chosen"
