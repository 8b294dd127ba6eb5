"""Figures of an attack: area under the curve, hits at few false alarms, each with an interval over users.

    AUC          probability that a trial that is true scores higher than one that is not; ties count half
    TPR at FPR   share of the true trials above the threshold that so few of the others reach
    first        share of the groups of trials with one true one in which that scores highest

An interval resamples users, each with all trials on them.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedperfit.simulation.audit.attack import Trials
from fedperfit.simulation.report.bootstrap import Bootstrap

Array = NDArray[np.float64]
FALSE_ALARMS = (0.01, 0.001)
"""Shares of the untrue trials that may be taken for true."""
_CHUNK = 100
"""Resamples whose thresholds are found at once."""


def figures(trials: Sequence[Trials], samples: int, *, across: bool) -> dict[str, Any]:
    """Return the figures of one condition.

    Args:
        trials: All trials under it; those of one group have one condition and user.
        samples: Resamples behind each interval.
        across: Whether trials on different users are compared, too.

    Returns:
        `users`, `trials`, `auc`, `tpr-0.01`, `tpr-0.001` (None with too few untrue trials) and, where
        each group has one true trial among others, `first` with its `chance`.
    """
    by_user: dict[str, list[Trials]] = defaultdict(list)
    for group in trials:
        by_user[group.user].append(group)
    users = list(by_user)
    bootstrap = Bootstrap(0, samples)
    weights = np.concatenate([np.ones((1, len(users))), bootstrap.weights(len(users))])
    result: dict[str, Any] = {
        "users": len(users),
        "trials": sum(len(group.scores) for group in trials),
        "auc": _estimate(_areas(list(by_user.values()), weights, across)),
    }
    scores, truths, owners = _flat(list(by_user.values()))
    for share in FALSE_ALARMS:
        enough = int((~truths).sum()) * share >= 1
        hits = _hits(scores, truths, weights, owners, share) if enough else None
        result[f"tpr-{share:g}"] = None if hits is None else _estimate(hits)
    if all(sum(group.truths) == 1 < len(group.truths) for group in trials):
        result["first"] = _estimate(_first(list(by_user.values()), weights))
        result["chance"] = float(np.mean([1 / len(group.truths) for group in trials]))
    return result


def area(scores: Sequence[float], truths: Sequence[bool]) -> float:
    """Return the area under the curve of some trials; NaN where all are true or none is."""
    values, true = np.asarray(scores, np.float64), np.asarray(truths, bool)
    wins, pairs = _wins(values[true], values[~true])
    return wins / pairs if pairs else float("nan")


def _wins(above: Array, below: Array) -> tuple[float, int]:
    """Count the pairs in which the first is higher, a tie as half of one, and all pairs."""
    ordered = np.sort(below)
    less, equal_or_less = (np.searchsorted(ordered, above, side) for side in ("left", "right"))
    return float((less + equal_or_less).sum()) / 2, len(above) * len(below)


def _areas(users: Sequence[Sequence[Trials]], weights: Array, across: bool) -> Array:
    """Return the area of each resample; weights: (samples, users)."""
    if not across:
        areas = [np.nanmean([area(g.scores, g.truths) for g in groups]) for groups in users]
        return np.asarray(weights @ np.asarray(areas) / weights.sum(axis=1))
    sides = [_sides(groups) for groups in users]
    found = [[_wins(above, below) for _, below in sides] for above, _ in sides]
    wins, pairs = np.asarray(found, np.float64).transpose(2, 0, 1)
    of = [np.einsum("su,uv,sv->s", weights, each, weights, optimize=True) for each in (wins, pairs)]
    with np.errstate(invalid="ignore"):
        return np.asarray(of[0] / of[1])


def _sides(groups: Sequence[Trials]) -> tuple[Array, Array]:
    scores = np.concatenate([np.asarray(group.scores, np.float64) for group in groups])
    truths = np.concatenate([np.asarray(group.truths, bool) for group in groups])
    return scores[truths], scores[~truths]


def _flat(users: Sequence[Sequence[Trials]]) -> tuple[Array, NDArray[np.bool_], NDArray[np.int64]]:
    """Return all scores from the highest down, with their truths and the numbers of their users."""
    rows = [
        (score, truth, number)
        for number, groups in enumerate(users)
        for group in groups
        for score, truth in zip(group.scores, group.truths, strict=True)
    ]
    rows.sort(key=lambda row: -row[0])
    scores, truths, owners = zip(*rows, strict=True)
    return np.asarray(scores, np.float64), np.asarray(truths, bool), np.asarray(owners, np.int64)


def _hits(
    scores: Array, truths: NDArray[np.bool_], weights: Array, owners: NDArray[np.int64], share: float
) -> Array:
    """Return for each resample the share of true trials at the threshold that few of the others reach."""
    ends = np.append(scores[1:] != scores[:-1], True)  # only between different scores lies a threshold
    hits = []
    for start in range(0, len(weights), _CHUNK):
        each = weights[start : start + _CHUNK][:, owners]
        true, false = (np.cumsum(each * side, axis=1) for side in (truths, ~truths))
        allowed = (false <= share * false[:, -1:] + 1e-9) & ends
        best = np.where(allowed, true, 0.0).max(axis=1)
        hits.append(best / np.maximum(true[:, -1], 1e-9))
    return np.concatenate(hits)


def _first(users: Sequence[Sequence[Trials]], weights: Array) -> Array:
    shares = [np.mean([_is_first(group) for group in groups]) for groups in users]
    return np.asarray(weights @ np.asarray(shares) / weights.sum(axis=1))


def _is_first(group: Trials) -> float:
    """Return 1 where the true trial scores highest; ties share it."""
    scores = np.asarray(group.scores, np.float64)
    highest = scores == scores.max()
    return float(highest[list(group.truths).index(True)] / highest.sum())


def _estimate(values: Array) -> dict[str, float]:
    """Return the value, which is the first, and the interval of the others."""
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}
