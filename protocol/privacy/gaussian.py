"""The exact trade-off of Gaussian mechanisms on the same data.

A sum with noise of z times its sensitivity is a Gaussian mechanism. Several are together as one (Dong, Roth
and Su, 2022, Corollary 3.3), whose trade-off has a closed form (Balle and Wang, 2018, Theorem 8):

    mu^2 = sum over them of 1 / z^2
    delta(epsilon) = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu)
"""

import math
from collections.abc import Callable

import torch

TOLERANCE = 1e-10
"""Relative error of what is found by bisection; the safe side is returned."""


def epsilon_of_mu(mu: float, delta: float) -> float:
    """Return the least epsilon that a Gaussian mechanism keeps at a delta.

    Args:
        mu: Its sensitivity in standard deviations of its noise.
        delta: Probability of the exceptions, above 0 and below 1.
    """
    if delta_of(mu, 0.0) <= delta:
        return 0.0
    return least(lambda epsilon: delta_of(mu, epsilon) <= delta)


def delta_of(mu: float, epsilon: float) -> float:
    """Return delta at an epsilon, of a Gaussian mechanism whose sensitivity is mu standard deviations."""
    low, high = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    return math.exp(_log_phi(low)) - math.exp(epsilon + _log_phi(high))


def _log_phi(x: float) -> float:
    return float(torch.special.log_ndtr(torch.tensor(x, dtype=torch.double)))


def least(holds: Callable[[float], bool], tolerance: float = TOLERANCE) -> float:
    """Return the least positive number for which a condition holds that holds from some number on."""
    low, high = 0.0, 1.0
    while not holds(high):
        low, high = high, 2 * high
    while high - low > tolerance * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
