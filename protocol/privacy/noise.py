"""Gaussian noise from a stored secret: unpredictable to everybody else, and the same again after a kill.

SHAKE-256 of the secret and a label gives 64 bits per number: one for its side, 52 for its place under the
normal distribution. No draw is infinite; the largest lies 8.2 standard deviations out, which half a million
draws a second would reach once in a century.
"""

import hashlib
import secrets

import numpy as np
import torch

SECRET_BYTES = 32


def new_secret() -> bytes:
    """Draw a secret from the operating system."""
    return secrets.token_bytes(SECRET_BYTES)


def normal(secret: bytes, label: str, count: int) -> torch.Tensor:
    """Return standard normal numbers.

    Args:
        secret: Secret of the federation.
        label: Names what the numbers are for; no two uses may have the same.
        count: How many.

    Returns:
        (count,) float64.
    """
    words = _words(secret, label, count)
    places = torch.from_numpy(((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-53)
    sides = torch.from_numpy(1.0 - 2.0 * (words & np.uint64(1)).astype(np.float64))
    numbers: torch.Tensor = sides * torch.special.ndtri(places)
    return numbers


def coins(secret: bytes, label: str, count: int, rate: float) -> list[bool]:
    """Throw coins that fall with a probability.

    Args:
        secret: Secret of the federation.
        label: As in `normal`.
        count: How many.
        rate: The probability.
    """
    places = (_words(secret, label, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return [bool(place < rate) for place in places]


def _words(secret: bytes, label: str, count: int) -> np.ndarray:
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret of {len(secret)} bytes")
    data = hashlib.shake_256(secret + label.encode()).digest(8 * count)
    return np.frombuffer(data, "<u8")
