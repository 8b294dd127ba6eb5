"""The maths of `fedperfit analyze` on vectors whose directions, coordinates and groups are planted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedperfit.simulation.analyze import spectra
from fedperfit.simulation.analyze.findings import CHANCE, FAILS, HOLDS, findings, layer_statistics
from fedperfit.simulation.analyze.vectors import HISTORY, OTHER, RANDOM


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(rows: int, d: int) -> torch.Tensor:
    return torch.linalg.qr(normal(d, rows)).Q.T


def test_a_planted_spectrum_has_its_ranks():
    left, right = orthonormal(5, 30).T, orthonormal(5, 48)  # (30, 5), (5, 48)
    energy = torch.tensor([70.0, 15.0, 8.0, 4.0, 3.0], dtype=torch.float64)
    v = (left * energy.sqrt()) @ right
    assert spectra.shares(v)[:5].tolist() == pytest.approx([0.70, 0.85, 0.93, 0.97, 1.0])
    assert [spectra.rank(spectra.shares(v), tau) for tau in (0.7, 0.8, 0.9, 0.95, 1.0)] == [1, 2, 3, 4, 5]
    estimates = spectra.rank_estimates(v)
    assert [estimates[f"{tau:g}"]["value"] for tau in spectra.TAUS] == [2, 3, 4]
    assert all(one["low"] <= one["value"] <= one["high"] <= 5 for one in estimates.values())


@settings(max_examples=20, deadline=None)
@given(users=st.integers(4, 12), d=st.integers(2, 20), seed=st.integers(0, 99))
def test_the_band_is_the_jackknife_of_plain_svds(users, d, seed):
    v = normal(users, d, seed=seed)
    curve = spectra.shares(v)
    curves = torch.ones(users, len(curve), dtype=torch.float64)
    for user in range(users):
        energy = torch.linalg.svdvals(torch.cat([v[:user], v[user + 1 :]])) ** 2
        curves[user, : len(energy)] = (energy.cumsum(0) / energy.sum())[: len(curve)]
    error = ((users - 1) / users * (curves - curves.mean(0)).square().sum(0)).sqrt()
    low, high = spectra.share_band(v)
    torch.testing.assert_close(low, (curve - 1.96 * error).clamp(0, 1))
    torch.testing.assert_close(high, (curve + 1.96 * error).clamp(0, 1))


def test_planted_coordinates_are_found_on_users_not_fitted_on():
    shared = orthonormal(1, 64)[0]
    planted = 10 + normal(40)
    v = planted[:, None] * shared + 0.05 * normal(40, 64, seed=1)
    for sign in (1, -1):
        u = spectra.direction(sign * v)
        assert float(u @ (sign * shared)) > 0.999
        torch.testing.assert_close(
            spectra.held_out_coordinates(sign * v, sign * v), planted, atol=0.2, rtol=0
        )
    assert spectra.spread_estimate(planted)["value"] == pytest.approx(float(planted.std()))


def test_noise_has_no_collective_shift_on_users_not_fitted_on():
    v = normal(40, 64)
    unseen = spectra.mean_estimate(spectra.held_out_coordinates(v, v))
    assert unseen["low"] < 0 < unseen["high"]
    assert spectra.held_out_shares(v)[4] < 0.3 < spectra.shares(v)[4]


def test_intervals_cover_a_known_mean_and_spread_as_often_as_they_say():
    draws = [3 + 2 * normal(40, seed=seed) for seed in range(100)]
    for estimate, truth in ((spectra.mean_estimate, 3), (spectra.spread_estimate, 2)):
        covered = sum(one["low"] <= truth <= one["high"] for one in map(estimate, draws))
        assert 85 <= covered <= 99


def test_a_control_that_is_the_history_is_no_different_and_a_smaller_one_is():
    v = 5 * orthonormal(1, 32)[0] + normal(24, 32) / 10
    same = layer_statistics({HISTORY: v, RANDOM: v, OTHER: v})
    assert same[RANDOM]["difference"] == {"value": 0, "low": 0, "high": 0}
    found = findings(same, 24)
    assert found["collective-shift"]["verdict"] == CHANCE
    assert found["few-directions"]["verdict"] == HOLDS
    less = layer_statistics({HISTORY: v, RANDOM: v / 2, OTHER: 2 * v})
    assert less[RANDOM]["difference"]["value"] == pytest.approx(2.5, abs=0.1)
    assert less[RANDOM]["own-shift"] == less[RANDOM]["shift"]
    assert less[RANDOM]["ranks"] == same[HISTORY]["ranks"]
    found = findings(less, 24)["collective-shift"]
    assert (found["verdict"], found[OTHER]["verdict"]) == (HOLDS, FAILS)


def test_many_directions_are_not_few():
    v = normal(24, 192)
    found = findings(layer_statistics({HISTORY: v, RANDOM: v, OTHER: v}), 24)
    assert found["few-directions"]["verdict"] == FAILS


def test_groups_are_told_from_chance():
    labels = [name for name in "abc" for _ in range(8)]
    x = normal(24, 16)
    apart = x + torch.eye(16, dtype=torch.float64)[[ord(label) - ord("a") for label in labels]] * 4
    planted, none = spectra.grouping(apart, labels), spectra.grouping(x, labels)
    for one in (planted, none):
        assert one["chance"] == pytest.approx((3 - 1) / (24 - 1), abs=0.01)
    assert planted["share"] > 0.3
    assert planted["p"] < 0.01 < none["p"]
    assert spectra.grouping(x, ["a"] * 24)["share"] == pytest.approx(0)
