"""What people write for a label, a gold or a field: taken where it is clear, refused with its number else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS, task_by_name
from fedperfit.protocol.tasks.door import (
    admitted,
    admitted_answer,
    admitted_item,
    admitted_name,
    admitted_question,
    nothing_let_in,
)

NEWS, SCORES, TITLES = TASKS["LaMP_2N"], TASKS["LaMP_3"], TASKS["LaMP_4"]
TRUTH = task_by_name(
    'name = "T"\nkind = "labels"\nfields = ["x"]\ntarget = "y"\nlabels = ["true", "No", "no", "1"]\n'
)
CAFES = task_by_name(
    'name = "T"\nkind = "labels"\nfields = ["x"]\ntarget = "y"\nlabels = ["caf\u00e9", "nan"]\n'
)
TYPED = task_by_name(
    'name = "T"\nkind = "labels"\nfields = ["x"]\ntarget = "y"\nlabels = ["don\'t know", "sci-fi"]\n'
)
PRICES = task_by_name(
    'name = "T"\nkind = "number"\nfields = ["x"]\ntarget = "price"\n'
    'labels = ["-0.5", "4", "4.5", "1.125", "1.234", "1234", "1500", "1234.5", "1234567"]\n'
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["text", "score", "x"]), inner)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("task", "value", "expected"),
    [
        (SCORES, "5.0", "5"),
        (SCORES, 5, "5"),
        (SCORES, 5.0, "5"),
        (SCORES, " 4\n", " 4\n"),
        (SCORES, "05", "5"),
        (NEWS, "Sports", "sports"),
        (NEWS, "food &amp; drink", "food & drink"),
        (NEWS, " Food &#38; Drink ", "food & drink"),
        (TRUTH, True, "true"),
        (TRUTH, "TRUE", "true"),
        (TRUTH, 1.0, "1"),
        (TRUTH, "No", "No"),
        (NEWS, "food  &\xa0drink", "food & drink"),
        (NEWS, "\uff33ports", "sports"),
        (CAFES, "Cafe\u0301", "caf\u00e9"),
        (CAFES, "NAN", "nan"),
        (TYPED, "don\u2019t know", "don't know"),
        (TYPED, "Sci\u2011Fi", "sci-fi"),
        (TYPED, "sci\u2013fi\u200b", "sci-fi"),
        (SCORES, "5\ufeff", "5"),
        (PRICES, "\u22120.5", "-0.5"),
        (TITLES, "&amp; as it stands ", "&amp; as it stands "),
        (TITLES, 3, "3"),
        (TITLES, "4,5", "4,5"),
        (SCORES, "4,0", "4"),
        (TRUTH, "1,0", "1"),
        (PRICES, " 4,5\n", "4.5"),
        (PRICES, "-0,50", "-0.5"),
        (PRICES, "\uff14,5", "4.5"),
        (PRICES, "1.234,5", "1234.5"),
        (PRICES, "1,234.5", "1234.5"),
        (PRICES, "1\u202f234,5", "1234.5"),
        (PRICES, "1'234.50", "1234.5"),
        (PRICES, "1\u2019234.5", "1234.5"),
        (PRICES, "1.234.567", "1234567"),
        (PRICES, "1,234,567", "1234567"),
        (PRICES, "1 234", "1234"),
        (PRICES, "1,125", "1.125"),
        (PRICES, "1,500", "1500"),
        (PRICES, "1.234", "1.234"),
    ],
)
def test_an_answer_whose_label_is_clear_is_taken(task, value, expected):
    assert admitted_answer(task, value) == expected


@pytest.mark.parametrize(
    ("task", "value", "told"),
    [
        (SCORES, "4.5", "score='4.5': expected one of 1, 2, 3, 4, 5"),
        (SCORES, "5 stars", "score='5 stars': expected one of"),
        (SCORES, "", "score='': expected"),
        (SCORES, True, "score='true': expected"),
        (SCORES, float("nan"), "'score' is missing: nan is no text"),
        (TITLES, float("inf"), "'title' is missing: inf is no text"),
        (SCORES, "0_5", "score='0_5': expected"),
        (NEWS, "sport", "category='sport': expected one of food & drink"),
        (NEWS, "x" * 500, "category='x+…': expected"),
        (TRUTH, "NO", "y='NO': may be No or no; expected one of true, No, no, 1"),
        (SCORES, "4,5", "score='4,5': expected one of 1, 2, 3, 4, 5"),
        (SCORES, "4,", "score='4,': expected one of 1, 2, 3, 4, 5"),
        (PRICES, "1,234", "price='1,234': may be 1.234 or 1234; expected one of -0.5"),
        (PRICES, "1.234.5", "price='1.234.5': expected one of"),
        (PRICES, "1,234,5", "price='1,234,5': expected one of"),
        (PRICES, "12.34.567", "price='12.34.567': expected one of"),
        (PRICES, "1" * 400 + ",5", "price='1+…': expected one of"),
        (NEWS, None, "'category' must be a text, found NoneType"),
        (TITLES, ["a"], "'title' must be a text, found list"),
    ],
)
def test_an_answer_that_means_no_label_or_several_is_refused(task, value, told):
    with pytest.raises(InputError, match=told):
        admitted_answer(task, value)


def test_a_name_is_one_person_whatever_number_it_is_stored_as():
    assert admitted_name(7) == admitted_name(7.0) == admitted_name(" 7 ") == "7"
    for value in (7.5, float("nan"), float("inf"), True, None, []):
        with pytest.raises(InputError, match="no user in"):
            admitted_name(value)


def test_a_bad_line_costs_that_line():
    told: list[str] = []
    items = [
        {"text": "good", "score": "5"},
        {"text": "stars", "score": "5 stars"},
        {"text": "mapped", "score": 4.0, "odd": None},
        {"score": "1"},
        InputError("broken JSON"),
        [],
        {"text": 7, "score": "1", "x": "\ud800"},
    ]
    numbered = enumerate(items, start=1)
    kept = list(admitted(numbered, lambda item: admitted_item(SCORES, item), "item", told.append))
    assert kept == [
        {"text": "good", "score": "5"},
        {"text": "mapped", "score": "4", "odd": None},
        {"text": "7", "score": "1", "x": "�"},
    ]
    assert told[0] == "item 2: score='5 stars': expected one of 1, 2, 3, 4, 5; left out"
    assert told[1:4] == [
        "item 4: no text field 'text'; left out",
        "item 5: broken JSON; left out",
        "item 6: expected an object; left out",
    ]


def test_nothing_is_quoted_where_the_lines_are_a_persons():
    told: list[str] = []
    items = [(1, {"text": "a", "score": "5 secret stars"}), (2, {"text": "b", "score": "4.0"})]
    list(admitted(items, lambda item: admitted_item(SCORES, item), "line", told.append, quoting=False))
    either = [(3, {"x": "a", "y": "NO"})]
    list(admitted(either, lambda item: admitted_item(TRUTH, item), "line", told.append, quoting=False))
    assert told == [
        "line 1: score is none of 1, 2, 3, 4, 5; left out",
        "line 2: score is taken as another word",
        "line 3: y is several of true, No, no, 1; left out",
    ]


def test_what_is_taken_as_something_else_is_told():
    told: list[str] = []
    items = [(9, {"text": "a", "category": "Sports"})]
    list(admitted(items, lambda item: admitted_item(NEWS, item), "line", told.append))
    assert told == ["line 9: category='Sports' is taken as 'sports'"]


def test_a_question_has_a_text_and_a_gold_of_the_task():
    asked = {"id": 1, "input": f"{SCORES.instruction}fine", "gold": 5}
    assert admitted_question(SCORES, asked)["gold"] == "5"
    assert admitted_question(SCORES, asked | {"gold": ""})["gold"] == ""
    for wrong in ({"gold": "4.5"}, {"input": "?"}, {"input": None}):
        with pytest.raises(InputError):
            admitted_question(SCORES, asked | wrong)


@given(value=VALUES)
def test_whatever_comes_is_an_item_that_a_file_can_hold_or_one_line(value):
    told: list[str] = []
    for item in admitted([(1, value)], lambda item: admitted_item(SCORES, item), "item", told.append):
        json.dumps(item, ensure_ascii=False).encode()
        assert SCORES.parse(item["score"]) is not None
    assert all("\n" not in line for line in told)


def test_the_first_reasons_are_told_where_nothing_is_let_in():
    assert str(nothing_let_in(["line 1: a"])) == "line 1: a"
    assert str(nothing_let_in([f"line {n}: a" for n in range(1, 6)])) == "; ".join(
        ["line 1: a", "line 2: a", "line 3: a", "and 2 more"]
    )
