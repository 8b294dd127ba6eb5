"""Mathematics of a delta-vector study, on v: (users, d), one delta-vector per user at one layer.

The collective coordinate of user i is <v_i, u1>, u1 the first right singular vector of v, uncentred, with the
sign that makes the mean positive, after PerFit (ICLR 2026). What is fitted is measured on other users.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedperfit.simulation.compare.settings import BOOTSTRAP_SAMPLES
from fedperfit.simulation.report.bootstrap import Bootstrap

TAUS = (0.8, 0.9, 0.95)
"""Shares of the squared length for which ranks are computed."""
HALVINGS = 20
"""Random halvings of the users, over which figures measured on other users are averaged."""
PERMUTATIONS = 2000
"""Permutations of the labels that chance is estimated from."""
_NORMAL = 1.96
"""Standard errors on either side of a 95 % interval."""

Estimate = dict[str, float]
"""A `value` and its 95 % interval, `low` to `high`."""


def shares(v: torch.Tensor) -> torch.Tensor:
    """Share of the squared length of v that its first 1, 2, … right singular vectors carry: (directions,)."""
    return _cumulated(torch.linalg.svdvals(v.double()).square())


def _cumulated(energy: torch.Tensor) -> torch.Tensor:
    """Cumulate the shares of energy: (…, directions), largest first."""
    return (energy.cumsum(-1) / energy.sum(-1, keepdim=True)).clamp(0, 1)


def rank(curve: torch.Tensor, tau: float) -> int:
    """Count the first directions that together carry a share of at least `tau`.

    Args:
        curve: Share that the first 1, 2, … directions carry: (directions,).
        tau: Share to reach.
    """
    return int((curve < tau - 1e-9).sum()) + 1


def share_band(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bound `shares` by a 95 % interval, by the jackknife over users.

    The bootstrap would not do: a user drawn twice adds no direction, so that resamples have too low a rank.

    Returns:
        Lower and upper curve, each (directions,).
    """
    curve = shares(v)
    users = len(v)
    gram = v.double() @ v.double().T
    rest = torch.stack([torch.cat([torch.arange(i), torch.arange(i + 1, users)]) for i in range(users)])
    without = gram[rest[:, :, None], rest[:, None, :]]  # (users, users - 1, users - 1)
    energy = torch.linalg.eigvalsh(without).flip(-1).clamp(min=0)
    curves = torch.ones(users, len(curve), dtype=torch.float64)
    most = min(users - 1, len(curve))
    curves[:, :most] = _cumulated(energy)[:, :most]
    error = ((users - 1) * curves.var(0, correction=0)).sqrt()
    return (curve - _NORMAL * error).clamp(0, 1), (curve + _NORMAL * error).clamp(0, 1)


def rank_estimates(v: torch.Tensor) -> dict[str, Estimate]:
    """Estimate rank(tau) for each of `TAUS`; an interval ends where the band about the shares reaches tau."""
    curve, (low, high) = shares(v), share_band(v)
    return {
        f"{tau:g}": {"value": rank(curve, tau), "low": rank(high, tau), "high": rank(low, tau)}
        for tau in TAUS
    }


def direction(v: torch.Tensor) -> torch.Tensor:
    """Return u1 of v: (d,).

    It is computed from the first left singular vector, an eigenvector of v vᵀ: (users, users).
    """
    left = torch.linalg.eigh(v.double() @ v.double().T).eigenvectors[:, -1]
    first = torch.nn.functional.normalize(left @ v.double(), dim=0)
    return -first if (v.double() @ first).mean() < 0 else first


def halves(users: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield who is fitted on and who is measured, both ways round for each of the random halvings."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(HALVINGS):
        order = torch.randperm(users, generator=generator)
        first, second = order[: users // 2], order[users // 2 :]
        yield first, second
        yield second, first


def held_out_coordinates(fitted: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
    """Compute coordinates on u1 that is fitted on the other half of the users: (users,).

    Args:
        fitted: Vectors that u1 is fitted on: (users, d).
        measured: Vectors whose coordinates are measured: (users, d).
    """
    total = torch.zeros(len(fitted), dtype=torch.float64)
    for fit, rest in halves(len(fitted)):
        total[rest] += measured[rest].double() @ direction(fitted[fit])
    return total / HALVINGS


def held_out_shares(v: torch.Tensor) -> torch.Tensor:
    """Share of the users' squared length that the other half's first directions carry: (directions,)."""
    curves = []
    for fit, rest in halves(len(v)):
        basis = torch.linalg.svd(v[fit].double(), full_matrices=False).Vh  # (directions, d)
        energy = (v[rest].double() @ basis.T).square().sum(0)
        curves.append(energy.cumsum(0)[: len(v) // 2] / v[rest].double().square().sum())
    return torch.stack(curves).mean(0)


def mean_estimate(x: torch.Tensor) -> Estimate:
    """Estimate the mean of x: (users,), with an interval bootstrapped over users."""
    return _bootstrapped(x, lambda weights, values: weights @ values)


def spread_estimate(x: torch.Tensor) -> Estimate:
    """Estimate the standard deviation over users of x: (users,), with an interval bootstrapped over users."""
    correction = len(x) / (len(x) - 1)

    def spread(weights: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        variance = weights @ values**2 - (weights @ values) ** 2
        return np.sqrt(np.maximum(variance, 0) * correction)

    return _bootstrapped(x - x.mean(), spread)


def _bootstrapped(
    x: torch.Tensor,
    statistic: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
) -> Estimate:
    """Estimate a statistic of x: (users,), with an interval bootstrapped over users.

    Args:
        x: A value per user: (users,).
        statistic: Maps weights (samples, users), each row of sum 1, and x to a value per sample.
    """
    values, users = x.double().numpy(), len(x)
    drawn = statistic(Bootstrap(0, BOOTSTRAP_SAMPLES).weights(users) / users, values)
    low, high = np.percentile(drawn, [2.5, 97.5])
    value = statistic(np.full((1, users), 1 / users), values)[0]
    return {"value": float(value), "low": float(low), "high": float(high)}


def grouping(v: torch.Tensor, labels: Sequence[str]) -> dict[str, float]:
    """Compute the share of the variance of v that is between users of different labels.

    Args:
        v: Delta-vectors: (users, d).
        labels: Label of each user.

    Returns:
        `share`, `chance`, its mean over permutations of the labels, and `p`, the part of them with as large a
        share.
    """
    x = v.double() - v.double().mean(0)
    names = sorted(set(labels))
    member = torch.tensor([[label == name for label in labels] for name in names]).double()  # (groups, users)

    def between(order: torch.Tensor) -> float:
        sums = member @ x[order]
        return float((sums.square().sum(1) / member.sum(1)).sum() / x.square().sum())

    generator = torch.Generator().manual_seed(0)
    value = between(torch.arange(len(x)))
    drawn = [between(torch.randperm(len(x), generator=generator)) for _ in range(PERMUTATIONS)]
    beyond = sum(one >= value - 1e-12 for one in drawn)
    return {"share": value, "chance": sum(drawn) / len(drawn), "p": (1 + beyond) / (1 + len(drawn))}


def principal_coordinates(v: torch.Tensor) -> torch.Tensor:
    """First two principal coordinates of v, centred: (users, 2)."""
    x = v.double() - v.double().mean(0)
    basis: torch.Tensor = torch.linalg.svd(x, full_matrices=False).Vh[:2]
    return x @ basis.T
