"""Small signed releases for tests."""

from datetime import UTC, datetime, timedelta

import torch

from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.signing import SigningKey

SHAPE = ShiftShape(layers=(1,), rank=1, hidden_size=2, positions=Positions.parse("l7"))
HEADER = ShiftHeader(shape=SHAPE, task="LaMP_2M", fingerprint="f" * 64, round=3)
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
OWN = """
name = "Urgency"
kind = "labels"
fields = ["mail"]
target = "urgency"
labels = ["now", "later"]
"""
"""File of a task of one's own."""


def shift(seed: int = 0) -> Shift:
    made = Shift.identity(SHAPE, seed=seed)
    with torch.no_grad():
        made.b.fill_(seed)
    return made


def first(key: SigningKey, **how: object) -> Release:
    return Release.first(shift(), HEADER, key, issued=START, lifetime=10 * DAY, **how)  # type: ignore[arg-type]


def chain(key: SigningKey, length: int) -> list[Release]:
    """Releases issued a day apart."""
    releases = [first(key)]
    for number in range(1, length):
        issued = START + number * DAY
        releases.append(releases[-1].next(shift(number), HEADER, key, issued=issued, lifetime=10 * DAY))
    return releases
