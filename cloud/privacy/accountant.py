"""The accountant: what noised sums tell about any one client, as (epsilon, delta).

A sum with noise of z times its sensitivity is a Gaussian mechanism. Where every client may take part in every
round, rounds compose exactly, and the trade-off has a closed form (`protocol/privacy/gaussian.py`).

Rounds that draw each client by a secret coin tell less; their privacy loss distributions are composed by
Google's dp-accounting.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from fedperfit.protocol.privacy.gaussian import TOLERANCE, epsilon_of_mu, least
from fedperfit.protocol.system.errors import InputError, line_of

_LIBRARY_TOLERANCE = 1e-4
"""Relative error of a multiplier that dp-accounting is asked for, on a grid no finer."""


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
    return epsilon_of_mu(mu, delta)


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
    tolerance = TOLERANCE if rate == 1 else _LIBRARY_TOLERANCE
    return least(lambda z: z > 0 and epsilon_of([Charge(z, rate)] * rounds, delta) <= epsilon, tolerance)


def _by_library(counted: Counter[Charge], delta: float) -> float:
    try:
        from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
        from dp_accounting.pld import PLDAccountant
    except Exception as error:  # beside an ImportError, what libraries raise that do not fit together
        raise InputError(
            f"client-sampling=poisson: needs dp-accounting ({line_of(str(error))}); "
            "pip install 'fedperfit[privacy]'"
        ) from None
    accountant = PLDAccountant()
    for charge, count in counted.items():
        event = GaussianDpEvent(charge.multiplier)
        accountant.compose(PoissonSampledDpEvent(charge.rate, event) if charge.rate < 1 else event, count)
    return float(accountant.get_epsilon(delta))
