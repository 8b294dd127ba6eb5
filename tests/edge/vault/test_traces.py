"""Numbers of personal shifts are found in bytes however they are written, and nothing else is."""

import json
import random
from dataclasses import replace

import pytest
import torch

from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.vault.traces import Traces
from fedperfit.protocol.shift.codecs import encode
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape

SHAPE = ShiftShape(layers=(0, 1), rank=4, hidden_size=32, positions=Positions(2, 2))


@pytest.fixture
def shift() -> PersonalShift:
    fitted = PersonalShift.start(SHAPE, seed=1)
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        fitted.W += 0.1 * torch.randn(fitted.W.shape, generator=draws)
        fitted.b += 0.1 * torch.randn(fitted.b.shape, generator=draws)
    return fitted


def inside(part: bytes, seed: int = 0) -> bytes:
    around = random.Random(seed)
    return around.randbytes(101) + part + around.randbytes(57)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_a_few_numbers_are_found_in_every_format(shift, dtype, swapped, turned):
    values = shift.W.detach()[1]
    some = (values.T if turned else values).reshape(-1)[20:36].to(dtype).contiguous()
    raw = some.view(torch.uint8).numpy().reshape(-1, dtype.itemsize)
    written = (raw[:, ::-1] if swapped else raw).tobytes()
    assert Traces([shift]).bytes_in(inside(written)) == len(written)


@pytest.mark.parametrize("codec", ["int8", "int4", "sign"])
@pytest.mark.parametrize("seed", range(5))
def test_encoded_tensors_are_found_however_they_were_rounded(shift, codec, seed):
    for tensor in (shift.R[0], shift.W, shift.W[1]):
        written = encode(codec, tensor.reshape(-1), seed)
        assert Traces([shift]).bytes_in(inside(written)) == len(written)


def test_a_decimal_number_is_found(shift):
    text = json.dumps({"note": float(shift.W.detach()[0, 1, 5])}).encode()
    assert Traces([shift]).bytes_in(inside(text)) == len(text) - len(b'{"note": }')


def test_what_is_another_persons_is_not_found(shift):
    other = PersonalShift.start(SHAPE, seed=9)
    with torch.no_grad():
        other.b += 0.3
    data = b"".join(tensor.detach().numpy().tobytes() for tensor in (other.R, other.W, other.b))
    data += b"".join(encode(codec, other.R.reshape(-1), 0) for codec in ("int8", "int4", "sign"))
    data += b"1.2345678 0.00000001 -7.654321e-3"
    assert Traces([other]).bytes_in(data) > 0, "it is found where it is looked for"
    assert Traces([shift]).bytes_in(data) == 0


def test_random_bytes_and_zeros_hold_nothing(shift):
    assert Traces([shift]).bytes_in(random.Random(0).randbytes(100_000) + bytes(1_000)) == 0
    fresh = PersonalShift.start(SHAPE, seed=1)
    assert Traces([fresh]).bytes_in(bytes(1_000)) == 0, "its b is zero"
    wide = PersonalShift.start(replace(SHAPE, layers=tuple(range(16))), seed=1)
    assert Traces([wide]).bytes_in(bytes(1_000)) == 0, "and as long as an encoded tensor"
    assert Traces([shift]).bytes_in(b"") == 0
    assert Traces([]).bytes_in(random.Random(0).randbytes(1_000)) == 0


def test_what_the_cloud_has_sent_is_no_trace(shift):
    rows = shift.R.detach().numpy().tobytes()
    assert Traces([shift]).bytes_in(inside(rows)) == len(rows)
    assert Traces([shift]).bytes_in(inside(rows), known=inside(rows, seed=1)) == 0
    encoded = encode("int8", shift.R.reshape(-1), 0) + f" {float(shift.R.detach()[0, 0, 0])} ".encode()
    assert Traces([shift]).bytes_in(inside(encoded)) > 0
    assert Traces([shift]).bytes_in(inside(encoded), known=inside(encoded, seed=1)) == 0


def test_a_shift_with_a_number_that_is_not_finite_is_searched_too(shift):
    with torch.no_grad():
        shift.b[0, 0] = float("nan")
    written = shift.W.detach()[0].numpy().tobytes()
    assert Traces([shift]).bytes_in(inside(written)) == len(written)
