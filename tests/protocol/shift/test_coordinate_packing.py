import struct
from dataclasses import replace

import pytest
import torch

from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.codecs import CODECS
from fedperfit.protocol.shift.coordinate_packing import (
    Agreement,
    pack_coordinates,
    pack_update,
    unpack_coordinates,
    unpack_update,
)
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.system.errors import InputError

SHAPE = ShiftShape(layers=(3, 4), rank=8, hidden_size=32, positions=Positions(0, 7))
BASIS = random_basis(SHAPE, 16, task="LaMP_2M", fingerprint="f" * 64, seed=0)
NUMBERS = torch.randn(BASIS.numbers, generator=torch.Generator().manual_seed(0))


def agreement(**changes: object) -> Agreement:
    return replace(Agreement(BASIS.digest, "sign", 3), **changes)


def test_an_update_of_one_bit_a_number_takes_36_bytes_and_a_tag():
    """The quickstart's shape, two layers of rank 8, with 16 columns."""
    data = pack_update(NUMBERS, agreement(), 0)
    assert len(data) == 36 + 4 <= 64


def test_a_broadcast_is_exact_and_tells_its_round():
    data = pack_coordinates(Coordinates.of(BASIS, NUMBERS), agreement())
    assert len(data) == 8 + 4 * BASIS.numbers
    coordinates, told = unpack_coordinates(data, BASIS, "sign")
    assert torch.equal(coordinates.numbers, NUMBERS)
    assert told == agreement()


@pytest.mark.parametrize("codec", CODECS)
def test_an_update_survives_as_well_as_its_codec_allows(codec):
    told = agreement(codec=codec)
    back = unpack_update(pack_update(NUMBERS, told, 1), told, BASIS.numbers)
    assert bool((back.sign() == NUMBERS.sign()).float().mean() > 0.7)
    if codec == "float32":
        assert torch.equal(back, NUMBERS)


@pytest.mark.parametrize("change", [{"basis": "0" * 64}, {"codec": "int8"}, {"round": 4}])
def test_what_was_agreed_on_differently_is_refused(change):
    data = pack_update(NUMBERS, agreement(**change), 0)
    with pytest.raises(InputError, match="another basis, codec or round"):
        unpack_update(data, agreement(), BASIS.numbers)


def test_malformed_broadcasts_are_refused():
    data = pack_coordinates(Coordinates.of(BASIS, NUMBERS), agreement())
    for wrong in (b"", data[:7], data[:-1], data + b"\0", b"\0" + data[1:]):
        with pytest.raises(InputError):
            unpack_coordinates(wrong, BASIS, "sign")
    with pytest.raises(InputError, match="another basis or codec"):
        unpack_coordinates(data, BASIS, "int8")
    with pytest.raises(InputError, match="not finite"):
        unpack_coordinates(data[:-4] + struct.pack("<f", float("nan")), BASIS, "sign")


def test_updates_that_are_not_finite_are_refused():
    told = agreement(codec="float32")
    data = pack_update(NUMBERS, told, 0)
    with pytest.raises(InputError, match="not finite"):
        unpack_update(data[:-4] + struct.pack("<f", float("inf")), told, BASIS.numbers)
