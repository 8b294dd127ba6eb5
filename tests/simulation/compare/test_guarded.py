"""A method that raises, or gives what no method may, costs its own row alone and is told in one line."""

import math
import sys

import pytest
from tests.simulation.compare.small_comparison import started

from fedperfit.protocol.system.files import read_json
from fedperfit.simulation.compare.cells import HISTORY, MAIN, WorkUnit
from fedperfit.simulation.compare.guarded import MethodFailed, apart, checked_answers, counted, guarded
from fedperfit.simulation.compare.method import LogUniform, Method
from fedperfit.simulation.compare.results import METRICS
from fedperfit.simulation.compare.search import drawn
from fedperfit.simulation.compare.study import run_comparison
from fedperfit.simulation.compare.workers import FAILED

HEAD = """
import sys
from fedperfit.simulation.compare.method import Method

"""
METHOD = """
class {name}(Method):
    name = "{name}"
    title = "{name}"
    def fit(self, history):
        {fit}
    def answer(self, fitted, questions):
        {answer}
"""
GREEDY = "history.items.clear(); history.answered.append(1); return history"
TEXTS = "return ['x'] * len(questions)"
WRONG = {
    "raises": ("return 1", "raise KeyError('nobody')"),
    "ends": ("sys.exit(3)", TEXTS),
    "shorter": ("return 1", "return ['x']"),
    "numbers": ("return 1", "return [1] * len(questions)"),
    "halves": ("return 1", "raise ValueError('half \\ud800 of it')"),
}


@pytest.fixture
def comparison(tmp_path):
    def make(methods, named=None):
        file = tmp_path / "own.py"
        text = (METHOD.format(name=name, fit=fit, answer=says) for name, (fit, says) in methods.items())
        file.write_text(HEAD + "".join(text))
        names = named or ["majority-user", *methods]
        return started(
            tmp_path / "run", methods=names, method_files=[str(file)] if methods else [], history_lengths=[2]
        )

    return make


def test_methods_that_fail_cost_their_own_rows_and_are_told(comparison):
    state = comparison(WRONG)
    summary = run_comparison(state.folder, 1, lambda event: None)
    (row,) = summary["tasks"]["LaMP_2M"]["rows"]
    assert (row["method"], row["users"]) == ("majority-user", 3)
    told = dict(zip(WRONG, summary["failed"], strict=True))
    assert all(f"LaMP_2M {name} main seed 0: " in line and "\n" not in line for name, line in told.items())
    assert "answer: KeyError: 'nobody' (" in told["raises"]
    assert "own.py, line " in told["raises"]
    assert "fit: SystemExit: 3" in told["ends"]
    assert "answer: 1 text for 3 questions" in told["shorter"]
    assert "answer: 1 is no text" in told["numbers"]
    assert "half ? of it" in told["halves"]
    assert "raise KeyError" in (state.folder / FAILED / "LaMP_2M-raises.txt").read_text()
    assert read_json(state.folder / METRICS)["failed"] == summary["failed"]


def test_a_mended_method_has_its_row_when_the_comparison_goes_on(comparison):
    state = comparison({"raises": WRONG["raises"]}, named=["raises"])
    assert not run_comparison(state.folder, 1, lambda event: None)["tasks"]
    comparison_file = state.settings.method_files[0]
    with open(comparison_file, "w", encoding="utf-8") as file:
        file.write(HEAD + METHOD.format(name="raises", fit="return 1", answer=TEXTS))
    summary = run_comparison(state.folder, 1, lambda event: None)
    assert [row["users"] for row in summary["tasks"]["LaMP_2M"]["rows"]] == [3]
    assert "failed" not in summary
    assert not (state.folder / FAILED).exists()


def test_a_method_that_changes_what_it_is_given_changes_nothing_for_others(comparison):
    state = comparison({"greedy": (GREEDY, TEXTS)}, named=["majority-user", "greedy"])
    people = state.participants("LaMP_2M")
    before = [len(target.history.items) for target in people.targets]
    for kind in (MAIN, HISTORY):
        unit = WorkUnit("LaMP_2M", "greedy", kind, 0)
        lines = list(state.do(unit, state.left(unit)))
        assert all(line["items"] for line in lines)
    assert [len(target.history.items) for target in people.targets] == before
    assert not any(1 in target.history.answered for target in people.targets)


def test_copies_share_no_item(comparison):
    others = comparison({}, named=["base"]).participants("LaMP_2M").others
    for copy, other in zip(apart(others), others, strict=True):
        assert copy == other
        copy.items[0].clear()
        assert other.items[0]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (None, "a NoneType in place of a list"),
        ("ab", "a str in place of a list"),
        (["a"], "1 text for 2 questions"),
        (["a", None], "None is no text"),
        (["a", "\ud800"], "half a character"),
    ],
)
def test_answers_that_are_no_texts_are_told(answers, told):
    with pytest.raises(MethodFailed, match=told):
        checked_answers(answers, 2)
    assert checked_answers(("a", "b"), 2) == ["a", "b"]


class _Counting(Method):
    name = title = "counting"
    kept: object = 0

    def __init__(self):
        """Take nothing."""

    def answer(self, fitted, questions):
        raise NotImplementedError

    def parameters(self, fitted):
        return self.kept


@pytest.mark.parametrize("kept", [math.nan, math.inf, -1, "many", None, True])
def test_a_count_that_is_none_is_told(kept):
    method = _Counting()
    method.kept = kept
    with pytest.raises(MethodFailed, match=r"parameters: .* in place of a number from 0"):
        counted(method, None)


def test_whatever_is_raised_is_one_line_with_its_place():
    at = r"\(.*test_guarded\.py, line \d+\)"
    with pytest.raises(MethodFailed, match=f"^learn: ValueError: a b {at}$"), guarded("learn"):
        raise ValueError("a\n\n b")
    with pytest.raises(MethodFailed, match="SystemExit"), guarded("learn"):
        sys.exit()
    with pytest.raises(KeyboardInterrupt), guarded("learn"):
        raise KeyboardInterrupt


def test_a_range_with_fewer_values_than_draws_is_drawn_from_to_the_end():
    narrow = type("Narrow", (_Counting,), {"space": {"rate": LogUniform(1e-3, 1e-3)}})
    assert drawn(narrow, 5) == [{"rate": 1e-3}]
