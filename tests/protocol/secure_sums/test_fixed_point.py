import numpy as np
import pytest
import torch

from fedperfit.protocol.secure_sums.fixed_point import CODECS, FixedPoint
from fedperfit.protocol.system.errors import InputError


def drawn(seed=0, numbers=300):
    return torch.randn(numbers, generator=torch.Generator().manual_seed(seed)) * 0.01


def test_votes_are_signs():
    fixed = FixedPoint("sign", 3, 40)
    whole = fixed.encode(torch.tensor([-0.2, 0.0, 1e-9]), 0.5, 0)
    assert whole.tolist() == [-1, 0, 1]
    assert fixed.decode(whole, 1).tolist() == [-1.0, 0.0, 1.0]
    assert fixed.field.width == 1


@pytest.mark.parametrize("codec", CODECS)
def test_the_error_is_below_a_step(codec):
    fixed = FixedPoint(codec, 300, 40)
    change = drawn()
    told = fixed.decode(fixed.encode(change, 0.5, 1), 1)
    wanted = change.sign().double() if codec == "sign" else change.double() / 0.5
    assert float((told - wanted).abs().max()) < fixed.unit * (codec != "sign") + 1e-12


@pytest.mark.parametrize("codec", ["float32", "int8", "int4"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_no_update_weighs_more_than_the_clipping_norm(codec, scale):
    fixed = FixedPoint(codec, 300, 40)
    for seed in range(5):
        whole = fixed.encode(drawn(seed) * scale, 0.05, seed)
        assert np.linalg.norm(whole) * fixed.unit <= 1
        assert np.abs(whole).max() <= fixed.most


@pytest.mark.parametrize("codec", ["int8", "int4"])
def test_coarse_steps_are_right_on_average(codec):
    fixed, change = FixedPoint(codec, 300, 1000), drawn()
    total = sum(fixed.decode(fixed.encode(change, 0.5, seed), 1) for seed in range(400)) / 400
    assert float((total - change.double() / 0.5).norm()) < 4 * fixed.unit * (300 / 12 / 400) ** 0.5


def test_units_are_powers_of_two_and_fit_the_field_at_any_number_of_clients():
    for codec in CODECS:
        for addends in (2, 125, 1000, 1023, 1024, 50_000):
            fixed = FixedPoint(codec, 300, addends)
            assert np.log2(fixed.unit) % 1 == 0
            assert 2 * fixed.most * addends < fixed.field.prime


def test_a_sum_beyond_what_honest_clients_make_is_refused():
    fixed = FixedPoint("sign", 2, 40)
    with pytest.raises(InputError, match="beyond what 3 honest"):
        fixed.decode(np.array([4, 0]), 3)


def test_what_is_no_fixed_point_is_refused():
    with pytest.raises(InputError, match="transport-dtype=bfloat16"):
        FixedPoint("bfloat16", 3, 40)
    with pytest.raises(InputError, match="not finite"):
        FixedPoint("sign", 1, 40).encode(torch.tensor([float("nan")]), 0.5, 0)
