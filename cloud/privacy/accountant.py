"""The accountant: what noised sums tell about any one client, as (epsilon, delta).

A sum with noise of z times its sensitivity is a Gaussian mechanism. Where every client may take part in every
round, rounds compose exactly (Dong, Roth and Su, 2022, Corollary 3.3), and the trade-off has a closed form
(Balle and Wang, 2018, Theorem 8):

    mu^2 = sum over rounds of 1 / z^2
    delta(epsilon) = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu)

Rounds that draw each client by a secret coin tell less; their privacy loss distributions are composed by
Google's dp-accounting.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from fedperfit.protocol.system.errors import InputError

_TOLERANCE = 1e-10
"""Relative error of what is found by bisection; the safe side is returned."""
_LIBRARY_TOLERANCE = 1e-4
"""The same where dp-accounting is asked, whose grid of privacy losses is no finer."""


class Charge(NamedTuple):
    """One noised sum over clients."""

    multiplier: float
    """Standard deviation of the noise, in sensitivities of the sum."""
    rate: float = 1.0
    """Probability with which each client is drawn by a secret coin; 1: all may take part, 0: none."""


def epsilon_of(charges: Iterable[Charge], delta: float) -> float:
    """Return the least epsilon that all charges together keep at a delta.

    Args:
        charges: The noised sums.
        delta: Probability of the exceptions, above 0 and below 1.

    Raises:
        InputError: If clients are drawn by coins and dp-accounting is not installed.
    """
    counted = Counter(charge for charge in charges if charge.rate)
    if not counted:
        return 0.0
    if any(charge.rate < 1 for charge in counted):
        return _by_library(counted, delta)
    mu = math.sqrt(math.fsum(count / charge.multiplier**2 for charge, count in counted.items()))
    if delta_of(mu, 0.0) <= delta:
        return 0.0
    return _least(lambda epsilon: delta_of(mu, epsilon) <= delta)


def delta_of(mu: float, epsilon: float) -> float:
    """Return delta at an epsilon, of a Gaussian mechanism whose sensitivity is mu standard deviations."""
    low, high = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    return math.exp(_log_phi(low)) - math.exp(epsilon + _log_phi(high))


def least_multiplier(epsilon: float, delta: float, rounds: int, rate: float = 1.0) -> float:
    """Return the least noise with which so many rounds keep a promise.

    Args:
        epsilon: Epsilon of the promise, above 0.
        delta: Delta of the promise.
        rounds: Number of noised sums.
        rate: As in Charge.

    Raises:
        InputError: As `epsilon_of`.
    """
    tolerance = _TOLERANCE if rate == 1 else _LIBRARY_TOLERANCE
    return _least(lambda z: z > 0 and epsilon_of([Charge(z, rate)] * rounds, delta) <= epsilon, tolerance)


def _log_phi(x: float) -> float:
    return float(torch.special.log_ndtr(torch.tensor(x, dtype=torch.double)))


def _least(holds: Callable[[float], bool], tolerance: float = _TOLERANCE) -> float:
    """Return the least positive number for which a condition holds that holds from some number on."""
    low, high = 0.0, 1.0
    while not holds(high):
        low, high = high, 2 * high
    while high - low > tolerance * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _by_library(counted: Counter[Charge], delta: float) -> float:
    try:
        from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
        from dp_accounting.pld import PLDAccountant
    except ImportError as error:
        raise InputError(
            f"client-sampling=poisson: needs dp-accounting ({error}); pip install 'fedperfit[privacy]'"
        ) from None
    accountant = PLDAccountant()
    for charge, count in counted.items():
        event = GaussianDpEvent(charge.multiplier)
        accountant.compose(PoissonSampledDpEvent(charge.rate, event) if charge.rate < 1 else event, count)
    return float(accountant.get_epsilon(delta))
