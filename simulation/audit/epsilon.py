"""What canaries tell of epsilon: an estimate where noise is Gaussian, and a bound that needs no such belief.

Canaries take part by fair coins. A Gaussian mechanism is told by one number, the distance mu of the scores of
those that took part from the others', in standard deviations; its epsilon follows in closed form. The bound
is that of one run with many canaries, by trade-off functions (Mahloujifar, Melis and Chaudhuri, 2024, arXiv
2410.22235, Algorithm 3): were the mechanism mu-Gaussian, so many right guesses would be too lucky.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from fedperfit.cloud.privacy.accountant import Charge, epsilon_of

CONFIDENCE = 0.95
_NORMAL = NormalDist()
_STEPS = 40
"""Halvings of the range of mu in which the bound is looked for."""
_MOST = 64.0
"""Largest mu that a bound can have."""


def epsilon_of_mu(mu: float, delta: float) -> float:
    """Return epsilon of a Gaussian mechanism.

    Args:
        mu: Sensitivity in standard deviations of the noise.
        delta: Delta of the promise.
    """
    return epsilon_of([Charge(1 / mu)], delta) if mu > 0 else 0.0


def gaussian_mu(scores: Sequence[float], took_part: Sequence[bool]) -> tuple[float, float]:
    """Estimate mu from canaries' scores; return it with its standard error."""
    values, true = np.asarray(scores, np.float64), np.asarray(took_part, bool)
    inside, outside = values[true], values[~true]
    count = len(values) - 2
    deviation = math.sqrt((inside.var() * len(inside) + outside.var() * len(outside)) / count)
    mu = float(inside.mean() - outside.mean()) / deviation
    return mu, math.sqrt(1 / len(inside) + 1 / len(outside) + mu**2 / (2 * count))


def epsilon_estimate(
    scores: Sequence[float], took_part: Sequence[bool], delta: float, confidence: float = CONFIDENCE
) -> dict[str, float]:
    """Estimate epsilon from canaries' scores, with an interval.

    Args:
        scores: Scores of the canaries.
        took_part: Which of them took part.
        delta: Delta of the promise.
        confidence: Probability with which the interval holds epsilon.
    """
    mu, error = gaussian_mu(scores, took_part)
    half = _NORMAL.inv_cdf((1 + confidence) / 2) * error
    ends = {"value": mu, "low": mu - half, "high": mu + half}
    return {name: epsilon_of_mu(one, delta) for name, one in ends.items()}


def epsilon_bound(
    scores: Sequence[float],
    took_part: Sequence[bool],
    delta: float,
    guessed: float,
    confidence: float = CONFIDENCE,
) -> float:
    """Return an epsilon that the mechanism exceeds.

    Args:
        scores: Scores of the canaries; their order alone counts.
        took_part: Which of them took part, by independent fair coins.
        delta: Delta of the promise.
        guessed: Share of the canaries that are guessed, those with the highest and the lowest scores; to be
            fixed before the scores are seen.
        confidence: Probability with which it does.
    """
    order = np.argsort(np.asarray(scores, np.float64))
    side = max(1, round(len(order) * guessed / 2))
    true = np.asarray(took_part, bool)
    right = int(true[order[-side:]].sum()) + int((~true[order[:side]]).sum())
    return epsilon_of_mu(mu_bound(len(order), 2 * side, right, confidence), delta)


def mu_bound(canaries: int, guesses: int, right: int, confidence: float = CONFIDENCE) -> float:
    """Return the largest mu for which so many right guesses are too lucky to be believed; 0 if none is."""
    low, high = 0.0, _MOST
    if not _too_lucky(low, canaries, guesses, right, confidence):
        return 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        lucky = _too_lucky(middle, canaries, guesses, right, confidence)
        low, high = (middle, high) if lucky else (low, middle)
    return low


def _too_lucky(mu: float, canaries: int, guesses: int, right: int, confidence: float) -> bool:
    """Whether a mu-Gaussian mechanism gives so many right guesses less often than the confidence leaves open.

    With r_i and h_i the shares of canaries that i or more right guesses take up, right and wrong ones:
    h_i >= f(r_(i+1)) for the trade-off f, and r_i = r_(i+1) + i / (guesses - i) (h_i - h_(i+1)).
    """
    allowed = 1 - confidence
    r, h = allowed * right / canaries, allowed * (guesses - right) / canaries
    for i in range(right - 1, -1, -1):
        next_h = max(h, _NORMAL.cdf(_NORMAL.inv_cdf(r) - mu) if 0 < r < 1 else float(r >= 1))
        r, h = r + i / (guesses - i) * (next_h - h), next_h
        if r + h > guesses / canaries:
            return True  # they only grow
    return r + h > guesses / canaries
