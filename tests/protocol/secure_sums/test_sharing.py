import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedperfit.protocol.secure_sums.field import FIELDS
from fedperfit.protocol.secure_sums.parameters import CommitteeShape
from fedperfit.protocol.secure_sums.sharing import Contradiction, reconstruct, share
from fedperfit.protocol.system.errors import InputError

FIELD = FIELDS[1]


@st.composite
def shapes(draw):
    size = draw(st.integers(2, 16))
    corrupt = draw(st.integers(1, size - 1))
    return CommitteeShape(size, corrupt, draw(st.integers((size + corrupt) // 2 + 1, size)))


@settings(deadline=None, max_examples=40)
@given(shapes(), st.integers(1, 20), st.integers(1, 6), st.randoms(use_true_random=False))
def test_any_members_that_are_enough_give_the_exact_sum(shape, numbers, clients, random):
    draws = np.random.default_rng(random.randrange(2**32))
    values = draws.integers(-1000, 1001, (clients, numbers))
    sums = sum(share(row, shape, FIELD) for row in values) % FIELD.prime
    places = random.sample(range(shape.size), random.randint(shape.threshold, shape.size))
    found, liars = reconstruct({place: sums[place] for place in places}, numbers, shape, FIELD)
    assert found.tolist() == values.sum(axis=0).tolist()
    assert liars == []


def test_too_few_members_give_nothing():
    shape = CommitteeShape(7, 1, 5)
    shares = share(np.arange(4), shape, FIELD)
    with pytest.raises(InputError, match="4 members answered, 5 are needed"):
        reconstruct(dict(enumerate(shares[:4])), 4, shape, FIELD)


@pytest.mark.parametrize("liar", range(7))
def test_a_member_that_lies_is_named_where_two_more_than_needed_answer(liar):
    shape, values = CommitteeShape(7, 1, 5), np.arange(9) - 4
    shares = share(values, shape, FIELD)
    shares[liar, 1] = (shares[liar, 1] + 1) % FIELD.prime
    found, liars = reconstruct(dict(enumerate(shares)), 9, shape, FIELD)
    assert liars == [liar]
    assert found.tolist() == values.tolist()


@pytest.mark.parametrize("liars", [(2,), (2, 4)])
def test_lies_are_detected_where_the_liar_cannot_be_told(liars):
    shape = CommitteeShape(7, 1, 5)
    shares = share(np.arange(9), shape, FIELD)
    for liar in liars:
        shares[liar] = (shares[liar] + 1 + liar) % FIELD.prime
    answers = dict(enumerate(shares[:6] if len(liars) == 1 else shares))
    with pytest.raises(Contradiction):
        reconstruct(answers, 9, shape, FIELD)


def test_one_vector_is_shared_anew_each_time():
    shape = CommitteeShape(7, 1, 5)
    one, two = (share(np.zeros(40, np.int64), shape, FIELD) for _ in range(2))
    assert not np.array_equal(one, two)
