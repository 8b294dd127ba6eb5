"""Figures of trials against a brute-force count, and intervals over users."""

import random

import pytest

from fedperfit.simulation.audit.attack import Trials
from fedperfit.simulation.audit.figures import area, figures


def drawn(users: int, trials: int, signal: float, seed: int = 0) -> list[Trials]:
    rng = random.Random(seed)
    made = []
    for user in range(users):
        truths = [n % 2 == 0 for n in range(trials)]
        scores = [round(rng.gauss(signal * truth, 1), 1) for truth in truths]  # rounded: there are ties
        made.append(Trials("c", f"u{user}", scores, truths))
    return made


def counted(scores: list[float], truths: list[bool]) -> float:
    true = [score for score, truth in zip(scores, truths, strict=True) if truth]
    other = [score for score, truth in zip(scores, truths, strict=True) if not truth]
    pairs = [(a > b) + (a == b) / 2 for a in true for b in other]
    return sum(pairs) / len(pairs)


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    assert area([2.0, 1.0, 0.0, 1.0], [True, True, False, False]) == 0.875
    assert area([1.0] * 8, [True] * 3 + [False] * 5) == 0.5


@pytest.mark.parametrize("across", [True, False])
def test_the_area_is_that_of_a_count(across: bool) -> None:
    trials = drawn(7, 12, 1.0)
    if across:
        expected = counted([s for t in trials for s in t.scores], [s for t in trials for s in t.truths])
    else:
        expected = sum(counted(list(t.scores), list(t.truths)) for t in trials) / 7
    auc = figures(trials, 200, across=across)["auc"]
    assert auc["value"] == pytest.approx(expected)
    assert auc["low"] < expected < auc["high"]


def test_more_users_make_the_interval_narrower() -> None:
    few, many = (figures(drawn(users, 12, 1.0), 400, across=False)["auc"] for users in (8, 128))
    assert many["high"] - many["low"] < (few["high"] - few["low"]) / 2


def test_hits_at_few_false_alarms() -> None:
    truths = [True] * 10 + [False] * 200
    scores = [float(n) for n in range(10)] + [8.5, 5.5, 5.4] + [-1.0] * 197
    told = figures([Trials("c", "u", scores, truths)], 20, across=True)
    assert told["tpr-0.01"]["value"] == 0.4  # 6 to 9; two false alarms, 8.5 and 5.5, are allowed
    assert told["tpr-0.001"] is None  # 200 untrue trials cannot show one in a thousand


def test_equal_scores_are_no_hits() -> None:
    told = figures([Trials("c", "u", [1.0] * 400, [True, False] * 200)], 20, across=True)
    assert told["auc"]["value"] == 0.5
    assert told["tpr-0.01"]["value"] == 0.0


def test_who_is_named_first() -> None:
    groups = [
        Trials("c", "a", [3.0, 1.0, 2.0, 0.0], [True, False, False, False]),
        Trials("c", "b", [1.0, 1.0, 0.0, 0.0], [True, False, False, False]),
        Trials("c", "c", [0.0, 1.0, 0.0, 0.0], [True, False, False, False]),
    ]
    told = figures(groups, 20, across=False)
    assert told["first"]["value"] == pytest.approx(1.5 / 3)
    assert told["chance"] == 0.25
