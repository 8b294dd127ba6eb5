"""Sums over people of which no combination tells of few, beside all combinations of small cases."""

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest

from fedperfit.protocol.secure_sums.cohorts import cohorts, fewest_told_apart, keeps_together, most_together

PEOPLE = [f"c{number}" for number in range(7)]


def tells_of(lists: Sequence[Sequence[str]], few: int) -> bool:
    """Whether some combination of the sums is a combination of fewer than so many people's updates."""
    rows = np.array([[float(name in names) for name in PEOPLE] for names in lists])
    rank = np.linalg.matrix_rank(rows)
    for count in range(1, few):
        for group in itertools.combinations(range(len(PEOPLE)), count):
            rest = [n for n in range(len(PEOPLE)) if n not in group]
            if np.linalg.matrix_rank(rows[:, rest]) < rank:
                return True
    return False


def drawn(rng: random.Random) -> list[str]:
    return sorted(rng.sample(PEOPLE, rng.randint(2, len(PEOPLE))))


def test_two_lists_that_differ_by_one_tell_of_one():
    assert tells_of([PEOPLE, PEOPLE[1:]], 2)
    assert fewest_told_apart([PEOPLE], PEOPLE[1:]) == 1
    assert not keeps_together([PEOPLE], PEOPLE[1:], 2)
    assert keeps_together([PEOPLE], PEOPLE[1:], 1)


def test_three_lists_that_differ_by_many_can_tell_of_one():
    lists = [PEOPLE, PEOPLE[:3], PEOPLE[3:6]]
    assert all(len(set(a) ^ set(b)) > 2 for a, b in itertools.combinations(lists, 2))
    assert tells_of(lists, 2)
    assert not keeps_together(lists[:2], lists[2], 2)


@pytest.mark.parametrize("fewest", [2, 3])
def test_what_keeps_together_tells_of_no_fewer_in_any_combination(fewest):
    rng, refused = random.Random(fewest), 0
    for _ in range(60):
        told: list[list[str]] = []
        for _ in range(6):
            names = drawn(rng)
            if keeps_together(told, names, fewest):
                told.append(names)
            else:
                refused += 1
        assert not told or not tells_of(told, fewest)
        assert all(len(cohort) >= fewest for cohort in cohorts(told))
    assert refused > 60


@pytest.mark.parametrize("fewest", [1, 2, 3])
def test_the_most_that_can_be_in_a_sum_is_taken(fewest):
    rng = random.Random(fewest)
    for _ in range(60):
        told: list[list[str]] = []
        for _ in range(4):
            available = drawn(rng)
            chosen = most_together(told, available, fewest)
            subsets = (
                names
                for count in range(len(available), 0, -1)
                for names in itertools.combinations(available, count)
                if keeps_together(told, names, fewest)
            )
            assert len(chosen) == len(next(subsets, ()))
            assert keeps_together(told, chosen, fewest)
            told += [chosen] if chosen else []
            assert most_together(told, available, fewest) == chosen, (
                "a round that goes on has the same people"
            )


def test_who_was_lost_takes_few_along_and_comes_back():
    assert most_together([PEOPLE], PEOPLE[1:], 2) == PEOPLE[1:6]
    assert most_together([PEOPLE, PEOPLE[1:6]], PEOPLE, 2) == PEOPLE
    assert most_together([PEOPLE[:5]], PEOPLE[:6], 2) == PEOPLE[:5], "a newcomer waits for another"
    assert most_together([PEOPLE], PEOPLE[1:], 1) == PEOPLE[1:]
