"""The accountant agrees with Google's, and its limits are what the formula says."""

import math
import sys

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant

from fedperfit.cloud.privacy.accountant import Charge, epsilon_of, least_multiplier
from fedperfit.protocol.privacy.gaussian import delta_of
from fedperfit.protocol.system.errors import InputError


@pytest.mark.parametrize(
    ("multiplier", "rounds", "delta"), [(0.7, 1, 1e-3), (2.0, 4, 1e-6), (12.0, 100, 1e-3), (40.0, 8, 5e-4)]
)
def test_full_participation_is_what_dp_accounting_says(multiplier: float, rounds: int, delta: float) -> None:
    accountant = PLDAccountant()
    accountant.compose(GaussianDpEvent(multiplier), rounds)
    expected = accountant.get_epsilon(delta)
    assert epsilon_of([Charge(multiplier)] * rounds, delta) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_coins_tell_less_and_as_much_as_dp_accounting_says() -> None:
    accountant = PLDAccountant()
    accountant.compose(PoissonSampledDpEvent(0.1, GaussianDpEvent(1.0)), 8)
    drawn = epsilon_of([Charge(1.0, 0.1)] * 8, 1e-5)
    assert drawn == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)
    assert drawn < epsilon_of([Charge(1.0)] * 8, 1e-5) / 2


def test_other_noise_in_other_rounds_adds_up_in_squares() -> None:
    mixed = epsilon_of([Charge(3.0), Charge(4.0), Charge(2.0, 0.0)], 1e-5)
    assert mixed == pytest.approx(epsilon_of([Charge(12 / 5)], 1e-5), rel=1e-9)


def test_delta_is_the_hockey_stick_of_two_gaussians() -> None:
    """Summed numerically, over a fine grid."""
    mu, epsilon, step = 1.3, 0.8, 1e-4
    total = 0.0
    for place in range(-100_000, 100_000):
        x = place * step
        density = [math.exp(-((x - at) ** 2) / 2) / math.sqrt(2 * math.pi) for at in (0.0, mu)]
        total += step * max(0.0, density[1] - math.exp(epsilon) * density[0])
    assert delta_of(mu, epsilon) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_the_least_noise_keeps_the_promise_and_a_little_less_does_not(epsilon: float) -> None:
    z = least_multiplier(epsilon, 1e-5, 4)
    assert epsilon_of([Charge(z)] * 4, 1e-5) <= epsilon
    assert epsilon_of([Charge(z * 0.999)] * 4, 1e-5) > epsilon
    assert z == pytest.approx(2 * least_multiplier(epsilon, 1e-5, 1), rel=1e-6)


def test_nothing_costs_nothing() -> None:
    assert epsilon_of([], 1e-5) == 0.0


def test_coins_without_the_library_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(InputError, match="needs dp-accounting"):
        epsilon_of([Charge(1.0, 0.5)], 1e-5)
