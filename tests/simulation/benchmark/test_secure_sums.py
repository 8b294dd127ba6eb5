import pytest

from fedperfit.simulation.benchmark.parts.secure_sums import NUMBERS, take


@pytest.mark.parametrize(("codec", "error"), [("sign", 0.0), ("float32", 2**-20)])
def test_a_round_with_a_third_lost_is_exact_to_its_rounding(codec, error):
    figures = take(10, codec)
    assert (figures["summed"], figures["answered"], figures["threshold"]) == (7, 7, 7)
    assert figures["off"] <= error
    width = 1 if codec == "sign" else 4
    assert figures["bytes_up"] == 32 + 64 + 10 * (width * NUMBERS // 3 + 16)
    assert figures["bytes_from_member"] == width * NUMBERS // 3
