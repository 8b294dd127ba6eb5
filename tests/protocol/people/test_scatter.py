"""How people differ: a sum that nobody decides alone, and its file."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from fedperfit.protocol.people.scatter import Scatter
from fedperfit.protocol.system.errors import InputError


def drawn(people: int = 9, numbers: int = 6) -> torch.Tensor:
    return torch.randn(people, numbers, generator=torch.Generator().manual_seed(0))


def test_it_is_the_sum_of_outer_products_about_the_mean() -> None:
    numbers = drawn()
    centred = numbers.double() - numbers.double().mean(0)
    median = sorted(centred.norm(dim=1).tolist())[4]
    expected = sum(torch.outer(one, one) * min(1.0, median / float(one.norm())) ** 2 for one in centred)
    told = Scatter.of("digest", numbers)
    torch.testing.assert_close(told.total, expected, rtol=1e-6, atol=1e-9)
    assert told.count == 8


def test_nobody_decides_alone_how_people_differ() -> None:
    numbers = drawn()
    honest = Scatter.of("", numbers)
    numbers[0] = 1e6 * torch.eye(6)[0]
    lied = Scatter.of("", numbers)
    assert float(lied.total.trace()) < 1e13
    assert float(honest.total.trace()) > 0


def test_a_file_holds_it_for_its_basis_alone() -> None:
    told = Scatter.of("digest", drawn())
    read = Scatter.from_bytes(told.to_bytes(), "digest", 6)
    torch.testing.assert_close(read.total, told.total, rtol=1e-6, atol=1e-6)
    assert (read.basis, read.count) == ("digest", 8)
    for basis, numbers in (("another", 6), ("digest", 5)):
        with pytest.raises(InputError, match=f"in another basis than this one of {numbers} coordinates"):
            Scatter.from_bytes(told.to_bytes(), basis, numbers)


@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=200, deadline=None)
def test_damage_is_refused_in_one_line_or_harmless(place: int, byte: int, cut: bool) -> None:
    data = bytearray(Scatter.of("digest", drawn()).to_bytes())
    place %= len(data)
    data[place] = byte
    told = ""
    try:
        Scatter.from_bytes(bytes(data[:place] if cut else data), "digest", 6)
    except InputError as error:
        told = str(error)
    assert "\n" not in told


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    told = Scatter.of("digest", drawn())
    told.total[0, 0] = value
    with pytest.raises(InputError, match="finite"):
        Scatter.from_bytes(told.to_bytes(), "digest", 6)
    with pytest.raises(InputError, match="not what differs between people"):
        Scatter.from_bytes(save({"sum": torch.eye(6)}), "digest", 6)


def test_sums_of_earlier_runs_which_name_no_basis_are_read() -> None:
    before = save({"sum": torch.eye(6), "count": torch.tensor([4])})
    read = Scatter.from_bytes(before, "digest", 6)
    assert (read.basis, read.count) == ("digest", 4)
    assert torch.equal(read.total, torch.eye(6).double())
