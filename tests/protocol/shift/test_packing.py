import dataclasses
import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedperfit.protocol.shift.packing import ShiftHeader, pack, read_header, unpack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError

FINGERPRINT = "0123456789abcdef" * 4


def packed(shift: Shift, dtype: str = "float32") -> bytes:
    return pack(shift, header_of(shift, dtype))


def header_of(shift: Shift, dtype: str = "float32") -> ShiftHeader:
    return ShiftHeader(shape=shift.shape, task="LaMP_2M", fingerprint=FINGERPRINT, round=3, dtype=dtype)


def small() -> Shift:
    return Shift.identity(ShiftShape(layers=(1, 2), rank=2, hidden_size=5, positions=Positions(7, 7)), seed=0)


GOOD = {dtype: packed(small(), dtype) for dtype in ("float32", "bfloat16")}
OFFSET = {dtype: read_header(data)[1] for dtype, data in GOOD.items()}


def with_header(data: bytes, offset: int, **changes: object) -> bytes:
    """`data` with fields of its header replaced, or dropped where the value is `...`."""
    fields = {**json.loads(data[8:offset]), **changes}
    encoded = json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()
    return data[:4] + struct.pack("<I", len(encoded)) + encoded + data[offset:]


@pytest.mark.parametrize(("layers", "rank", "hidden"), [((0,), 1, 1), ((2, 5, 7), 4, 24), ((3,), 16, 16)])
def test_float32_comes_back_bit_for_bit(make_shift, layers, rank, hidden):
    shift = make_shift(layers, rank, hidden, "f7+l7")
    with torch.no_grad():
        shift.b[0, 0] = -0.0
        shift.W[0, 0, 0] = float("nan")
    back, header = unpack(packed(shift))
    assert header == header_of(shift)
    for name, tensor in shift.state_dict().items():
        assert torch.equal(back.state_dict()[name].view(torch.int32), tensor.view(torch.int32)), name


def test_bfloat16_comes_back_rounded_with_orthonormal_rows(make_shift):
    shift = make_shift((2, 5), 8, 48)
    back, header = unpack(packed(shift, "bfloat16"))
    assert header.dtype == "bfloat16"
    assert back.R.dtype == torch.float32
    assert torch.equal(back.W, back.R + (shift.W - shift.R).bfloat16().float())
    assert torch.equal(back.b, shift.b.bfloat16().float())
    assert (back.R - shift.R).abs().max() < 2**-8
    assert ((back.R @ back.R.mT) - torch.eye(8)).abs().max() < 1e-6


def test_the_identity_survives_bfloat16(make_shift):
    """Rounding W itself would move every hidden state by a few parts in a thousand."""
    shape = make_shift((2, 5), 8, 48).shape
    back, _ = unpack(packed(Shift.identity(shape, seed=3), "bfloat16"))
    hidden = torch.randn(5, 48)
    assert back.delta(0, hidden).abs().max() == 0


def test_size_is_header_and_values(make_shift):
    shift = make_shift((2, 5), 8, 48)
    for dtype, width in (("float32", 4), ("bfloat16", 2)):
        data = packed(shift, dtype)
        assert len(data) == read_header(data)[1] + width * shift.shape.parameters


def test_same_shift_packs_to_the_same_bytes(make_shift):
    assert packed(make_shift((1,), 2, 8)) == packed(make_shift((1,), 2, 8))


def test_only_a_plain_shift_is_packed():
    class Personal(Shift):
        pass

    shift = small()
    personal = Personal(shift.shape, R=shift.R.data, W=shift.W.data, b=shift.b.data)
    with pytest.raises(TypeError, match="Personal cannot be packed"):
        packed(personal)
    with pytest.raises(InputError, match="another shape"):
        pack(
            shift,
            dataclasses.replace(header_of(shift), shape=dataclasses.replace(shift.shape, layers=(0, 1))),
        )


@pytest.mark.parametrize("change", [{"dtype": "float16"}, {"round": -1}])
def test_impossible_headers_are_refused(change):
    with pytest.raises(InputError, match=f"{next(iter(change))}="):
        dataclasses.replace(header_of(small()), **change)


@pytest.mark.parametrize("dtype", GOOD)
def test_every_truncation_is_refused(dtype):
    data = GOOD[dtype]
    for length in range(len(data)):
        with pytest.raises(InputError):
            unpack(data[:length])


@given(dtype=st.sampled_from(list(GOOD)), tail=st.binary(min_size=1, max_size=64))
def test_over_long_is_refused(dtype, tail):
    with pytest.raises(InputError):
        unpack(GOOD[dtype] + tail)


def test_every_changed_header_byte_is_refused_or_still_a_shift():
    data, offset = GOOD["float32"], OFFSET["float32"]
    for position in range(offset):
        for value in {
            0,
            0x22,
            0x2D,
            0x30,
            0x39,
            0x5C,
            0x7B,
            0x80,
            0xFF,
            data[position] ^ 1,
            data[position] ^ 0x20,
        }:
            changed = bytearray(data)
            changed[position] = value
            assert_refused_or_valid(bytes(changed))


@given(
    dtype=st.sampled_from(list(GOOD)),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_changed_bytes_anywhere_are_refused_or_still_a_shift(dtype, changes):
    changed = bytearray(GOOD[dtype])
    for position, value in changes:
        changed[position % len(changed)] = value
    assert_refused_or_valid(bytes(changed))


@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    for candidate in (data, b"FPS1" + data, b"FPS1" + struct.pack("<I", len(data)) + data):
        with pytest.raises(InputError):
            unpack(candidate)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(name=st.sampled_from([*json.loads(GOOD["float32"][8 : OFFSET["float32"]]), "extra"]), value=JSON)
def test_any_json_in_a_header_field_is_refused_or_still_a_shift(name, value):
    assert_refused_or_valid(with_header(GOOD["float32"], OFFSET["float32"], **{name: value}))


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": 10**12, "hidden_size": 10**12},
        {"hidden_size": 2**62},
        {"layers": list(range(10_000))},
        {"layers": [True, 2]},
        {"rank": True},
        {"round": -1},
        {"positions": ""},
        {"dtype": "complex64"},
        {"task": ...},
        {"pickle": "yes"},
    ],
)
def test_hostile_headers_cost_nothing(changes):
    with pytest.raises(InputError):
        unpack(with_header(GOOD["float32"], OFFSET["float32"], **changes))


@pytest.mark.parametrize(
    "text", [b"[" * 60_000, b"9" * 60_000, b"\xff\xfe" * 9, b'{"rank":' + b"1" * 9_000 + b"}"]
)
def test_header_text_that_breaks_parsers_is_refused(text):
    with pytest.raises(InputError, match="header"):
        unpack(b"FPS1" + struct.pack("<I", len(text)) + text)


def assert_refused_or_valid(data: bytes) -> None:
    try:
        shift, header = unpack(data)
    except InputError:
        return
    assert type(shift) is Shift
    assert header.shape == shift.shape
    assert unpack(pack(shift, header))[1] == header
