"""What one client adds is bounded, noise has the scale that the accountant counts, whoever replies."""

import math

import pytest
import torch

from fedperfit.cloud.privacy.mechanism import Mechanism
from fedperfit.protocol.privacy.noise import new_secret

VOTES = Mechanism(multiplier=2.0, votes=True, size=0.02)
CLIPPED = Mechanism(multiplier=2.0, votes=False, size=0.5)
COUNT = 272
SECRET = bytes(32)


def drawn(clients: int, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(clients, COUNT, generator=torch.Generator().manual_seed(clients))


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e12])
def test_no_client_adds_more_than_the_sensitivity(size: float) -> None:
    assert float(VOTES.bounded(drawn(5, size)).norm(dim=1).max()) <= math.sqrt(COUNT)
    assert float(CLIPPED.bounded(drawn(5, size)).norm(dim=1).max()) <= 1.0


def test_a_small_change_is_kept_to_the_unit() -> None:
    small = drawn(5, 1e-3)
    torch.testing.assert_close(0.5 * CLIPPED.bounded(small), small.double(), rtol=0, atol=0.5 * 2.0**-20)


@pytest.mark.parametrize("mechanism", [VOTES, CLIPPED])
@pytest.mark.parametrize("replies", [40, 28, 12, 0])
def test_the_noise_is_the_same_whoever_drops_out(mechanism: Mechanism, replies: int) -> None:
    """40 are asked; the sum is divided by 40, and its noise has z times the sensitivity."""
    updates = drawn(40)[:replies]
    sensitivity = math.sqrt(COUNT) if mechanism.votes else 1.0
    scale = mechanism.size * mechanism.multiplier * sensitivity / 4_000
    mean = Mechanism(0.0, mechanism.votes, mechanism.size).change(updates, 4_000, SECRET, "")
    noise = torch.cat([mechanism.change(updates, 4_000, SECRET, f"{number}") - mean for number in range(60)])
    assert float(noise.std()) == pytest.approx(scale, rel=0.02)
    assert abs(float(noise.mean())) < 0.03 * scale


def test_without_noise_it_is_the_mean_over_all_who_were_asked() -> None:
    updates = drawn(10)
    exact = Mechanism(0.0, True, 0.02).change(updates, 20, new_secret(), "1")
    torch.testing.assert_close(exact, 0.02 * updates.sign().double().sum(dim=0) / 20)


def test_every_client_weighs_the_same() -> None:
    lone = torch.zeros(2, COUNT)
    lone[0], lone[1] = 1e6, -1.0
    for mechanism in (VOTES, CLIPPED):
        exact = Mechanism(0.0, mechanism.votes, mechanism.size)
        assert float(exact.bounded(lone).sum(dim=0).abs().max()) < 1e-5


@pytest.mark.parametrize("mechanism", [VOTES, CLIPPED])
def test_sums_lie_on_one_grid_whatever_the_data(mechanism: Mechanism) -> None:
    for seed in (1, 2):
        change = mechanism.change(drawn(seed), 1, new_secret(), "1") / mechanism.size
        inner = change[change.abs() < 1] if mechanism.votes else change
        places = inner * 2.0**20
        assert float((places - places.round()).abs().max()) < 1e-6
