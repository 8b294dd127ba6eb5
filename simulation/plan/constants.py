"""Costs of a round as the benchmark measured them, and what they say of rounds of other sizes.

    seconds   s + a (t + u n)              s: of any round, t: of a client asked, u: of a number of its update
    memory    as in `simulation.plan.round_memory`

s, t, u and the memory of a round and of a reply are those nearest to the measured rounds, by relative errors.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.benchmark.record import read_record
from fedperfit.simulation.plan.round_memory import BYTES_PER_CLIENT, BYTES_PER_MESSAGE, moments

SHIPPED = "rounds.json"
"""Record beside this file: `fedperfit benchmark --parts rounds`."""
STATUS_BYTES = {"down": 127, "up": 318}
"""Bytes of the messages by which each client is asked for its status before the first round."""
STATUS_SECONDS = 0.0005
"""Processor seconds of the cloud for each of them, measured with 2,000 clients."""
STATUS_MEMORY = 864
"""Bytes of memory that the cloud takes for each of them while it asks, measured with 2,000 clients."""
_PREFIX = 6
"""Bytes of an update before its coordinates: tag and scale."""
_BROADCAST_PREFIX = 8
"""Bytes of a broadcast before its coordinates: tag and round."""
_LOOKS = 5
"""Times that memory is fitted, each time by the moments that the time before makes the larger ones."""
_KIN = {"votes": ("votes", "int8"), "int8": ("votes", "int8"), "shifts": ("shifts", "large-shifts")}
"""Forms whose rounds are measured to know one form's: those of coordinates, those of whole shifts."""


@dataclass(frozen=True)
class Constants:
    """Costs of rounds with one form of updates."""

    form: str
    """Form of updates: `votes`, `int8` or `shifts`."""
    payload_up: int
    """Bytes of an update."""
    payload_down: int
    """Bytes of a broadcast."""
    envelope_up: float
    """Bytes of a message to the cloud beside the update."""
    envelope_down: float
    """Bytes of a message from the cloud beside the broadcast."""
    round_seconds: float
    """Processor seconds of the cloud for a round of any size."""
    client_seconds: float
    """Processor seconds for each client that is asked and answers."""
    number_seconds: float
    """Processor seconds for each number of its update."""
    round_bytes: float
    """Bytes of memory that a round of any size takes above the loaded program."""
    reply_bytes: float
    """Bytes of memory for each reply, beside its numbers."""

    def of_size(self, up: int | None, down: int | None) -> "Constants":
        """Return the costs of rounds with updates of another size.

        Args:
            up: Bytes of an update; None for those that were measured.
            down: Bytes of a broadcast; None for those that go with such updates.
        """
        if up is None:
            return replace(self, payload_down=down or self.payload_down)
        whole = self.form == "shifts"
        told = up if whole else _BROADCAST_PREFIX + 4 * numbers_of(self.form, up)
        return replace(self, payload_up=up, payload_down=down or told)

    def seconds_of(self, asked: int) -> float:
        """Return the processor seconds of the cloud in a round.

        Args:
            asked: Number of clients that are asked.
        """
        each = self.client_seconds + self.number_seconds * numbers_of(self.form, self.payload_up)
        return self.round_seconds + asked * each

    def memory_of(self, connected: int, asked: int, replies: int) -> float:
        """Return the peak memory of a round in bytes, above that of the loaded program.

        Args:
            connected: Number of clients that are connected.
            asked: Number of those that are asked.
            replies: Number of those that answer.
        """
        clients = BYTES_PER_CLIENT * (connected - asked) + BYTES_PER_MESSAGE * asked
        numbers = numbers_of(self.form, self.payload_up)
        both = moments(numbers, replies, whole=self.form == "shifts")
        return self.round_bytes + clients + max(one.updates + self.reply_bytes * one.replies for one in both)


def numbers_of(form: str, payload: int) -> int:
    """Return the numbers of an update.

    Args:
        form: Form of the update.
        payload: Its bytes.
    """
    if form not in _KIN["votes"]:
        return max(1, payload // 4)
    return max(1, (payload - _PREFIX) * (8 if form == "votes" else 1))


def read_constants(record: Path | None, form: str) -> Constants:
    """Read the costs of rounds from a record of the benchmark.

    Args:
        record: A record with the part `rounds`; None takes the shipped one.
        form: Form of updates: `votes`, `int8` or `shifts`.

    Raises:
        InputError: The file is no record, or lacks rounds with such updates.
    """
    if record is None:
        shipped = resources.files("fedperfit.simulation.plan") / SHIPPED
        content = json.loads(shipped.read_text(encoding="utf-8"))
    else:
        content = read_record(record)
    measured = [row for row in content.get("rounds", []) if row["peak_bytes"] is not None]
    rows = [row for row in measured if row["form"] == form]
    kin = [row for row in measured if row["form"] in _KIN[form]]
    if not rows or {row["form"] for row in kin} != set(_KIN[form]):
        names = " and ".join(_KIN[form])
        raise InputError(f"{record or SHIPPED}: no rounds of {names} with their memory are in it")
    return constants_of(max(rows, key=lambda row: int(row["replies"])), kin)


def constants_of(last: Mapping[str, Any], kin: Sequence[Mapping[str, Any]]) -> Constants:
    """Return the costs that measured rounds tell.

    Args:
        last: Measurement of the form with most replies, as in the record.
        kin: Measurements of forms that are handled alike, of two sizes or more.
    """
    replies = np.array([row["replies"] for row in kin])
    numbers = np.array([numbers_of(row["form"], row["payload_up"]) for row in kin])
    taken = np.array([row["seconds"] for row in kin])
    seconds = _nearest(np.stack([np.ones(len(kin)), replies, replies * numbers], axis=1), taken, taken)
    memory = _memory(kin)
    return Constants(
        form=last["form"],
        payload_up=last["payload_up"],
        payload_down=last["payload_down"],
        envelope_up=last["bytes_up"] / last["replies"] - last["payload_up"],
        envelope_down=last["bytes_down"] / last["replies"] - last["payload_down"],
        round_seconds=seconds[0],
        client_seconds=seconds[1],
        number_seconds=seconds[2],
        round_bytes=memory[0],
        reply_bytes=memory[1],
    )


def _memory(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the bytes of any round and of a reply, by the moments that they make the larger ones."""
    peaks = np.array([float(row["peak_bytes"]) for row in rows])
    sent = np.array([BYTES_PER_MESSAGE * row["replies"] for row in rows])
    both = [
        moments(numbers_of(row["form"], row["payload_up"]), row["replies"], whole="shifts" in row["form"])
        for row in rows
    ]
    each = 0.0
    for _ in range(_LOOKS):
        most = [max(pair, key=lambda one: one.updates + each * one.replies) for pair in both]
        replies = np.array([one.replies for one in most])
        left = peaks - sent - np.array([one.updates for one in most])
        of_round, each = _nearest(np.stack([np.ones(len(rows)), replies], axis=1), left, peaks)
    return of_round, each


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
