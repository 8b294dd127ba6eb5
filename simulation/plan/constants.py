"""Costs of a round as the benchmark measured them, and what lies between and beyond its measurements."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.benchmark.record import read_record

SHIPPED = "rounds.json"
"""Record beside this file: `fedperfit benchmark --parts rounds`."""
STATUS_BYTES = {"down": 127, "up": 318}
"""Bytes of the messages by which each client is asked for its status before the first round."""
STATUS_SECONDS = 0.0005
"""Processor seconds of the cloud for each of them, measured with 2,000 clients."""
STATUS_MEMORY = 864
"""Bytes of memory that the cloud takes for each of them while it asks, measured with 2,000 clients."""
BYTES_PER_CLIENT = 250
"""Bytes of memory that the cloud takes for each connected client in a round, whether it is asked or not."""
_ENOUGH = 1_000
"""Replies from which on the seconds of a round are those of its replies alone."""


@dataclass(frozen=True)
class Constants:
    """Costs of rounds with one form of updates."""

    payload_up: int
    """Bytes of an update."""
    payload_down: int
    """Bytes of a broadcast."""
    envelope_up: float
    """Bytes of a message to the cloud beside the update."""
    envelope_down: float
    """Bytes of a message from the cloud beside the broadcast."""
    seconds: float
    """Processor seconds of the cloud for each reply."""
    replies: tuple[int, ...]
    """Numbers of replies at which memory was measured, ascending."""
    memory: tuple[float, ...]
    """Peak memory of a round at each of them, in bytes, above that before the round."""

    def memory_of(self, replies: int) -> float:
        """Return the peak memory of a round in bytes, on straight lines between and beyond what was measured.

        Args:
            replies: Number of replies.
        """
        if replies <= self.replies[-1]:
            return float(np.interp(replies, self.replies, self.memory))
        slope = (self.memory[-1] - self.memory[-2]) / (self.replies[-1] - self.replies[-2])
        return self.memory[-1] + slope * (replies - self.replies[-1])


def read_constants(record: Path | None, form: str) -> Constants:
    """Read the costs of rounds from a record of the benchmark.

    Args:
        record: A record with the part `rounds`; None takes the shipped one.
        form: Form of updates: `votes` or `shifts`.

    Raises:
        InputError: The file is no record, or has too few rounds with such updates.
    """
    if record is None:
        shipped = resources.files("fedperfit.simulation.plan") / SHIPPED
        content = json.loads(shipped.read_text(encoding="utf-8"))
    else:
        content = read_record(record)
    rows = [row for row in content.get("rounds", []) if row["form"] == form and row["peak_bytes"] is not None]
    rows.sort(key=lambda row: int(row["replies"]))
    if len(rows) < 2:
        raise InputError(f"{record}: fewer than two rounds of {form} were measured with their memory")
    return constants_of(rows)


def constants_of(rows: list[Mapping[str, Any]]) -> Constants:
    """Return the costs that measured rounds tell.

    Args:
        rows: Measurements of one form as in the record, by ascending number of replies, at least two.
    """
    last = rows[-1]
    enough = [row for row in rows if row["replies"] >= _ENOUGH] or [last]
    return Constants(
        payload_up=last["payload_up"],
        payload_down=last["payload_down"],
        envelope_up=last["bytes_up"] / last["replies"] - last["payload_up"],
        envelope_down=last["bytes_down"] / last["replies"] - last["payload_down"],
        seconds=median(row["seconds"] / row["replies"] for row in enough),
        replies=tuple(row["replies"] for row in rows),
        memory=tuple(float(row["peak_bytes"]) for row in rows),
    )
