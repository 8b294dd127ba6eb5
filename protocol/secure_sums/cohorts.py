"""Who may be summed up next, so that no combination of sums tells of few people.

Sums over lists of people can be added to and taken from each other. People who are in exactly the same of the
lists have one coefficient in every combination, so all that several sums tell is the sums over such cohorts:

    cohort(person) = the lists that name the person

Two lists that differ by one person make a cohort of one, whose update is their difference. A sum keeps people
together where it takes a cohort whole, leaves it out, or parts it into two of `fewest` people or more; people
who were in no list before come as `fewest` or more.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

Cohort = frozenset[str]


def fewest_together(apart: int, corrupt: int) -> int:
    """Return the fewest people of a cohort, so that it tells of no fewer whose machines are not the cloud's.

    What those of the cloud's sealed it can take from the sum of a cohort.

    Args:
        apart: Fewest people that sums, taken from each other, may tell of; 1 bounds nothing.
        corrupt: Most machines that the cloud may control.
    """
    return apart + corrupt if apart > 1 else 1


def cohorts(lists: Iterable[Iterable[str]]) -> list[Cohort]:
    """Return people by the lists that name them, the cohorts in the order of their first names.

    Args:
        lists: Names of the people in each sum.
    """
    named: defaultdict[str, list[int]] = defaultdict(list)
    for number, names in enumerate(lists):
        for name in names:
            named[name].append(number)
    together: defaultdict[tuple[int, ...], set[str]] = defaultdict(set)
    for name, numbers in named.items():
        together[tuple(numbers)].add(name)
    return sorted((frozenset(names) for names in together.values()), key=min)


def fewest_told_apart(told: Sequence[Iterable[str]], names: Iterable[str]) -> int:
    """Return the size of the smallest cohort that a further sum makes; 0 where it makes none.

    Args:
        told: Names of the people in each sum before.
        names: Those of the further one.
    """
    new = frozenset(names)
    before = cohorts(told)
    parts = [
        len(part)
        for cohort in before
        if cohort & new and cohort - new
        for part in (cohort & new, cohort - new)
    ]
    newcomers = new.difference(*before)
    return min([*parts, len(newcomers)] if newcomers else parts, default=0)


def keeps_together(told: Sequence[Iterable[str]], names: Iterable[str], fewest: int) -> bool:
    """Return whether a further sum makes no cohort of fewer people.

    Args:
        told: Names of the people in each sum before.
        names: Those of the further one.
        fewest: Fewest people of a cohort.
    """
    smallest = fewest_told_apart(told, names)
    return smallest == 0 or smallest >= fewest


def most_together(told: Sequence[Iterable[str]], available: Iterable[str], fewest: int) -> list[str]:
    """Return as many people as one sum more may have, sorted.

    Args:
        told: Names of the people in each sum before.
        available: Names of those who could be in it.
        fewest: Fewest people of a cohort.
    """
    here = frozenset(available)
    before = cohorts(told)
    chosen = set[str]()
    for cohort in before:
        chosen |= _part(cohort, here, fewest)
    newcomers = here.difference(*before)
    return sorted(chosen | newcomers if len(newcomers) >= fewest else chosen)


def _part(cohort: Cohort, here: Cohort, fewest: int) -> set[str]:
    """Return the largest part of a cohort that a sum may have; who waits beside the lost are the last."""
    present = sorted(cohort & here)
    if len(present) == len(cohort):
        return set(present)
    most = min(len(present), len(cohort) - fewest)
    return set(present[:most]) if most >= fewest else set()
