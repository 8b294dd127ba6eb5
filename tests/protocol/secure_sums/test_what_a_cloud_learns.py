"""A cloud and the members it controls, as linear algebra: what of one client's numbers do they know?

Unknown are every client's packed numbers and the uniform values beside them. Known are the corrupt members'
shares of every client, and one sum of shares from each honest member, over whatever list it was shown. What
is known of a client alone are the combinations of known rows that vanish outside its numbers.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedperfit.protocol.secure_sums.field import FIELDS
from fedperfit.protocol.secure_sums.parameters import CommitteeShape
from fedperfit.protocol.secure_sums.sharing import _interpolation, _sharing

FIELD = FIELDS[3]
SHAPES = [
    CommitteeShape(7, 1, 5),
    CommitteeShape(9, 2, 7),
    CommitteeShape(15, 3, 12),
    CommitteeShape(6, 2, 6),
]
of_shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.size}-{shape.threshold}")


def rank(rows):
    """Return the rank of a matrix over the field, by elimination on Python's whole numbers."""
    rows = [[int(entry) for entry in row] for row in rows]
    found = 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((i for i in range(found, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        inverse = pow(rows[found][column], -1, FIELD.prime)
        for i in range(found + 1, len(rows)):
            if rows[i][column]:
                by = rows[i][column] * inverse % FIELD.prime
                rows[i] = [(a - by * b) % FIELD.prime for a, b in zip(rows[i], rows[found], strict=True)]
        found += 1
    return found


def learned(sharing, packed, corrupt, lists, sharings, of):
    """Count the dimensions that are known of one client's packed numbers.

    Args:
        sharing: Matrix (members, packed + uniform values).
        packed: Numbers in one polynomial.
        corrupt: Number of corrupt members, the first ones.
        lists: What each honest member was shown: pairs of a client and which of its sharings.
        sharings: Sharings that each client made of the same numbers.
        of: The client.
    """
    width = sharing.shape[1]
    clients = 1 + max(client for shown in lists for client, _ in shown)
    uniform = width - packed
    total = clients * (packed + sharings * uniform)

    def row(member, shown):
        entries = np.zeros(total, np.int64)
        for client, which in shown:
            start = client * (packed + sharings * uniform)
            entries[start : start + packed] += sharing[member, :packed]
            at = start + packed + which * uniform
            entries[at : at + uniform] += sharing[member, packed:]
        return entries % FIELD.prime

    every = [(client, which) for client in range(clients) for which in range(sharings)]
    rows = [row(member, [one]) for member in range(corrupt) for one in every]
    rows += [row(corrupt + number, shown) for number, shown in enumerate(lists)]
    start = of * (packed + sharings * uniform)
    outside = [np.delete(entries, range(start, start + packed)) for entries in rows]
    return rank(rows) - rank(outside)


def attack(shape, victim=0, others=(1, 2)):
    """Make the lists of the trap: T - c honest members see the others, the rest the victim too."""
    honest = shape.size - shape.corrupt
    plain = [(client, 0) for client in others]
    return [
        plain if number < shape.threshold - shape.corrupt else [(victim, 0), *plain]
        for number in range(honest)
    ]


@of_shapes
def test_a_cloud_that_shows_members_different_lists_learns_nothing_of_a_client(shape):
    sharing = _sharing(shape, FIELD)
    assert learned(sharing, shape.packed, shape.corrupt, attack(shape), 1, 0) == 0


@of_shapes
def test_with_the_usual_threshold_it_would_learn_a_number_for_each_member_that_may_be_lost(shape):
    packed, private = shape.threshold - shape.corrupt, shape.corrupt
    points = [*(-number for number in range(1, packed + 1)), *range(1, private + 1)]
    sharing = _interpolation(points, range(1, shape.size + 1), FIELD)
    assert learned(sharing, packed, shape.corrupt, attack(shape), 1, 0) == shape.size - shape.threshold


def test_a_second_answer_of_each_member_would_tell_the_victim():
    shape = SHAPES[0]
    sharing = _sharing(shape, FIELD)
    once = attack(shape)
    twice = np.concatenate([sharing, sharing[shape.corrupt :]])  # honest members, asked again
    lists = [[(1, 0), (2, 0)] for _ in once] + [[(0, 0), (1, 0), (2, 0)] for _ in once]
    assert learned(twice, shape.packed, shape.corrupt, lists, 1, 0) == shape.packed


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(SHAPES[:2]), st.data())
def test_no_choice_of_lists_and_of_repeated_contributions_tells_of_a_client(shape, data):
    sharings, clients = 2, range(4)
    lists = []
    for _ in range(shape.size - shape.corrupt):
        shown = data.draw(st.sets(st.sampled_from(clients), min_size=2))
        lists.append([(client, data.draw(st.integers(0, sharings - 1))) for client in sorted(shown)])
    lists[0] = [(client, 0) for client in clients]
    sharing = _sharing(shape, FIELD)
    for client in clients:
        assert learned(sharing, shape.packed, shape.corrupt, lists, sharings, client) == 0


@of_shapes
def test_the_sum_over_one_list_is_what_is_learned(shape):
    honest = shape.size - shape.corrupt
    lists = [[(0, 0)]] * honest  # of one client, which members refuse
    sharing = _sharing(shape, FIELD)
    assert learned(sharing, shape.packed, shape.corrupt, lists, 1, 0) == shape.packed
