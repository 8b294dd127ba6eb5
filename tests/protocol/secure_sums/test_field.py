import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedperfit.protocol.secure_sums.field import FIELDS, PrimeField
from fedperfit.protocol.system.errors import InputError

fields = st.sampled_from(FIELDS)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: str(field.prime))
def test_the_moduli_are_the_largest_primes_of_their_width(field):
    def prime(n):
        return all(n % d for d in range(2, int(n**0.5) + 1))

    assert prime(field.prime)
    top = min(256**field.width, 2**31)
    assert not any(prime(n) for n in range(field.prime + 1, top))


@settings(deadline=None, max_examples=40)
@given(fields, st.data())
def test_products_of_matrices_are_those_of_whole_numbers(field, data):
    entries = st.integers(0, field.prime - 1)
    left = np.array([[data.draw(entries) for _ in range(3)] for _ in range(2)])
    right = np.array([[data.draw(entries) for _ in range(2)] for _ in range(3)])
    exact = (left.astype(object) @ right.astype(object)) % field.prime
    assert field.matmul(left, right).tolist() == exact.tolist()


@settings(deadline=None, max_examples=40)
@given(fields, st.data())
def test_elements_survive_their_bytes_and_signs(field, data):
    values = data.draw(st.lists(st.integers(-(field.prime // 2), field.prime // 2), min_size=1))
    elements = np.array(values) % field.prime
    encoded = field.to_bytes(elements)
    assert len(encoded) == field.width * len(values)
    assert field.signed(field.from_bytes(encoded, len(values))).tolist() == values


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: str(field.prime))
def test_what_is_no_element_is_refused(field):
    beyond = np.array([field.prime], np.int64)
    with pytest.raises(InputError, match="not below"):
        field.from_bytes(field.to_bytes(beyond), 1)
    with pytest.raises(InputError, match="expected"):
        field.from_bytes(b"\0", 2)


def test_the_smallest_field_that_holds_a_sum_is_taken():
    assert PrimeField.holding(125).width == 1
    assert PrimeField.holding(126).width == 2
    assert PrimeField.holding(2**30 - 1).width == 4
    with pytest.raises(InputError, match="do not fit"):
        PrimeField.holding(2**30)


def test_drawn_elements_are_uniform():
    drawn = FIELDS[0].random(251, 400)
    assert drawn.shape == (251, 400)
    assert (drawn.min(), drawn.max()) == (0, 250)
    counts = np.bincount(drawn.reshape(-1), minlength=251)
    assert ((counts - 400) ** 2 / 400).sum() < 250 + 8 * np.sqrt(500)  # chi squared
