import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError


@pytest.mark.parametrize(
    ("text", "first", "last"), [("f7+l7", 7, 7), ("l7", 0, 7), ("f3", 3, 0), ("f1+l12", 1, 12)]
)
def test_parse_and_print(text, first, last):
    assert Positions.parse(text) == Positions(first, last)
    assert str(Positions(first, last)) == text


BAD = [
    *("", "+", "f", "l", "f0", "l0", "f0+l0", "f7l7", "f7+", "+l7", "l7+f7", "7", "F7", "f-1"),
    *(" l7", "l7\n", "l\u0667", "l12345", "f7+l7+l7", "f7 + l7"),
]


@pytest.mark.parametrize("text", BAD)
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match="positions="):
        Positions.parse(text)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (-1, 3), (3, -1)])
def test_numbers_out_of_range_are_told(first, last):
    with pytest.raises(InputError, match=f"positions=f{first}\\+l{last}"):
        Positions(first, last)


@given(
    first=st.integers(0, 6),
    last=st.integers(0, 6),
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=4
    ),
)
def test_mask_equals_index_lists(first, last, rows):
    """rows: (padding left, prompt, target or padding right) of one example each."""
    if first + last == 0:
        return
    width = max(sum(row) for row in rows)
    prompt = torch.zeros(len(rows), width, dtype=torch.bool)
    expected = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, (left, length, _) in enumerate(rows):
        tokens = list(range(left, left + length))
        for token in tokens:
            prompt[index, token] = True
        for token in tokens[:first] + (tokens[-last:] if last else []):
            expected[index, token] = True
    assert torch.equal(Positions(first, last).mask(prompt), expected)
    assert torch.equal(Positions(first, last).mask(prompt.long()), expected)
