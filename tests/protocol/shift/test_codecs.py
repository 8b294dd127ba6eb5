import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedperfit.protocol.shift.codecs import CODECS, decode, encode
from fedperfit.protocol.system.errors import InputError

SIZES = {"float32": 1088, "bfloat16": 544, "int8": 274, "int4": 138, "sign": 36}
NUMBERS = 272


def drawn(numbers: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(numbers, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("codec", CODECS)
def test_an_encoding_has_the_bytes_it_says_and_no_header(codec):
    data = encode(codec, drawn(NUMBERS, 0), 0)
    assert len(data) == SIZES[codec] == CODECS[codec].size(NUMBERS)


@given(
    codec=st.sampled_from(sorted(CODECS)),
    numbers=st.integers(1, 50),
    seed=st.integers(0, 999),
    exponent=st.integers(-6, 6),
)
@settings(max_examples=80, deadline=None)
def test_a_round_trip_errs_by_less_than_a_step_and_is_stable(codec, numbers, seed, exponent):
    values = drawn(numbers, seed, 10.0**exponent)
    data = encode(codec, values, seed)
    back = decode(codec, data, numbers)
    assert data == encode(codec, values, seed)
    most = float(values.abs().max())
    if codec == "sign":
        assert torch.equal(back > 0, values > 0)
        assert back.abs().tolist() == pytest.approx([float(values.abs().mean())] * numbers, rel=2**-7)
        return
    step = {"float32": 0.0, "bfloat16": 2**-8, "int8": 1.02 / 127, "int4": 1.02 / 7}[codec]
    assert float((back - values).abs().max()) <= step * most
    assert float(back.abs().max()) <= 1.02 * most


@pytest.mark.parametrize(("codec", "most"), [("int8", 127), ("int4", 7)])
def test_rounding_is_unbiased(codec, most):
    values = drawn(40, 3)
    draws = 2000
    mean = torch.stack([decode(codec, encode(codec, values, n), 40) for n in range(draws)]).mean(0)
    step = float(values.abs().max()) / most
    assert float((mean - values).abs().max()) < 4 * step / 2 / draws**0.5


@pytest.mark.parametrize("codec", CODECS)
def test_zeros_stay_zeros(codec):
    assert not decode(codec, encode(codec, torch.zeros(5), 0), 5).any()


@pytest.mark.parametrize("codec", CODECS)
def test_other_lengths_and_values_that_are_not_finite_are_refused(codec):
    data = encode(codec, drawn(9, 0), 0)
    for wrong in (data[:-1], data + b"\0", b""):
        with pytest.raises(InputError, match="bytes of 9"):
            decode(codec, wrong, 9)
    with pytest.raises(InputError, match="not finite"):
        encode(codec, torch.tensor([1.0, float("nan")]), 0)


@pytest.mark.parametrize("codec", ["int8", "int4", "sign"])
@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0])
def test_a_scale_that_no_encoder_writes_is_refused(codec, scale):
    data = encode(codec, drawn(9, 0), 0)
    forged = torch.tensor([scale]).bfloat16().view(torch.uint8).numpy().tobytes()
    with pytest.raises(InputError, match="scale"):
        decode(codec, forged + data[2:], 9)
