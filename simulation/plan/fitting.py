"""What measured rounds say of the seconds and the memory of others: factors that come nearest to them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedperfit.simulation.plan.round_memory import BYTES_PER_MESSAGE, moments

COORDINATES, WHOLE = ("votes", "int8"), ("shifts", "large-shifts")
"""Forms that are measured: coordinates of two sizes, whole shifts of two sizes."""
_PREFIX = 6
"""Bytes of an update before its coordinates: tag and scale."""
_LOOKS = 5
"""Times that memory is fitted, each time by the moments that the time before makes the larger ones."""


def numbers_of(form: str, payload: int) -> int:
    """Return the numbers of an update.

    Args:
        form: Form of the update.
        payload: Its bytes.
    """
    if form in WHOLE:
        return max(1, payload // 4)
    return max(1, (payload - _PREFIX) * (8 if form == "votes" else 1))


def least_bytes(form: str) -> int:
    """Return the bytes of the smallest update of a form: one number."""
    return 4 if form in WHOLE else _PREFIX + 1


def seconds_factors(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the seconds of any round, of a client asked, and of a number of its update.

    Args:
        rows: Measurements of forms that are handled alike, as in the record.
    """
    replies = np.array([row["replies"] for row in rows])
    numbers = np.array([numbers_of(row["form"], row["payload_up"]) for row in rows])
    taken = np.array([row["seconds"] for row in rows])
    return _nearest(np.stack([np.ones(len(rows)), replies, replies * numbers], axis=1), taken, taken)


def memory_factors(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the bytes of any round, and of a reply.

    Args:
        rows: Measurements of forms that are handled alike, as in the record.
    """
    peaks = np.array([float(row["peak_bytes"]) for row in rows])
    sent = np.array([BYTES_PER_MESSAGE * row["replies"] for row in rows])
    pairs = [
        moments(numbers_of(row["form"], row["payload_up"]), row["replies"], whole=row["form"] in WHOLE)
        for row in rows
    ]
    found = [0.0, 0.0]
    for _ in range(_LOOKS):
        each = found[-1]
        most = [max(pair, key=lambda one: one.updates + each * one.replies) for pair in pairs]
        features = np.array([[1.0, one.replies] for one in most])
        found = _nearest(features, peaks - sent - np.array([one.updates for one in most]), peaks)
    return found


def _nearest(
    features: NDArray[np.float64], values: NDArray[np.float64], scales: NDArray[np.float64]
) -> list[float]:
    """Return the factors, none of them negative, with which features come nearest to values.

    Args:
        features: (measurements, factors).
        values: (measurements,).
        scales: What an error is divided by: (measurements,).
    """
    used = list(range(features.shape[1]))
    while True:
        factors = np.linalg.lstsq(features[:, used] / scales[:, None], values / scales, rcond=None)[0]
        if len(used) == 1 or factors.min() >= 0:
            break
        del used[int(factors.argmin())]
    found = dict(zip(used, factors.tolist(), strict=True))
    return [max(0.0, found.get(column, 0.0)) for column in range(features.shape[1])]
