"""Packed Shamir sharing (Franklin and Yung, 1992): several numbers in a polynomial, a value for each member.

A polynomial of degree T - 1 takes the numbers at -1, ..., -p and uniform values at 1, ..., tau, which are the
first members' shares; the others' follow. Any tau shares are uniform, whatever the numbers; shares add up to
shares of the sum; T of them give it. More than T have to agree, which shows a member that lies.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from fedperfit.protocol.secure_sums.field import Elements, PrimeField
from fedperfit.protocol.secure_sums.parameters import CommitteeShape
from fedperfit.protocol.system.errors import InputError


class Contradiction(InputError):
    """The members' sums do not lie on one polynomial, and nobody can tell who lies."""


def share(values: Elements, shape: CommitteeShape, field: PrimeField) -> Elements:
    """Share whole numbers among the members.

    Args:
        values: (n,) whole numbers, positive or negative.
        shape: The committee's numbers.
        field: Field that tells the sums apart.

    Returns:
        (members, columns): a row for each member.
    """
    columns = shape.columns(len(values))
    packed = np.zeros(shape.packed * columns, np.int64)
    packed[: len(values)] = values % field.prime
    drawn = field.random(shape.private, columns)
    known = np.concatenate([packed.reshape(shape.packed, columns), drawn])
    return field.matmul(_sharing(shape, field), known)


def reconstruct(
    answers: Mapping[int, Elements], numbers: int, shape: CommitteeShape, field: PrimeField
) -> tuple[Elements, list[int]]:
    """Return the sum of which members hold shares, and the members that lied about theirs.

    Args:
        answers: (columns,) by the member's place in the committee, from 0.
        numbers: Number of the sum's entries.
        shape: The committee's numbers.
        field: Field of the shares.

    Returns:
        (numbers,) whole numbers, and the places of liars: one at most, where more than T + 1 have answered.

    Raises:
        InputError: If fewer than T have answered.
        Contradiction: If answers contradict each other and the liar cannot be told.
    """
    if len(answers) < shape.threshold:
        raise InputError(f"{len(answers)} members answered, {shape.threshold} are needed")
    places, liars = sorted(answers), list[int]()
    if not _agree(places, answers, shape, field):
        liars = [place for place in places if _agree_without(place, answers, shape, field)]
        if len(liars) != 1:
            raise Contradiction("the members' sums contradict each other")
        places.remove(liars[0])
    used = places[: shape.threshold]
    points = [place + 1 for place in used]
    packed = field.matmul(_interpolation(points, _secret_points(shape), field), _rows(used, answers))
    return field.signed(packed.reshape(-1)[:numbers]), liars


def _agree_without(
    place: int, answers: Mapping[int, Elements], shape: CommitteeShape, field: PrimeField
) -> bool:
    """Return whether the other members agree, and are enough for that to mean something."""
    others = sorted(set(answers) - {place})
    return len(others) > shape.threshold and _agree(others, answers, shape, field)


def _agree(
    places: Sequence[int], answers: Mapping[int, Elements], shape: CommitteeShape, field: PrimeField
) -> bool:
    used, rest = places[: shape.threshold], places[shape.threshold :]
    if not rest:
        return True
    matrix = _interpolation([place + 1 for place in used], [place + 1 for place in rest], field)
    return np.array_equal(field.matmul(matrix, _rows(used, answers)), _rows(rest, answers))


def _rows(places: Sequence[int], answers: Mapping[int, Elements]) -> Elements:
    return np.stack([answers[place] for place in places])


def _secret_points(shape: CommitteeShape) -> list[int]:
    return [-number for number in range(1, shape.packed + 1)]


@lru_cache(maxsize=16)
def _sharing(shape: CommitteeShape, field: PrimeField) -> Elements:
    """Return the matrix (members, p + tau) that makes shares of numbers and uniform values."""
    known = [*_secret_points(shape), *range(1, shape.private + 1)]
    return _interpolation(known, list(range(1, shape.size + 1)), field)


def _interpolation(known: Sequence[int], wanted: Sequence[int], field: PrimeField) -> Elements:
    """Return Lagrange's matrix (wanted, known): values at the wanted points from those at the known ones."""
    rows = []
    for at in wanted:
        row = []
        for own in known:
            above = below = 1
            for other in known:
                if other != own:
                    above = above * (at - other) % field.prime
                    below = below * (own - other) % field.prime
            row.append(above * field.inverse(below) % field.prime)
        rows.append(row)
    return np.array(rows, np.int64)
