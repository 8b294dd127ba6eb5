"""Costs of a round as the benchmark measured them, and what they say of rounds of other sizes.

    seconds   s + a (t + u n)              s: of any round, t: of a client asked, u: of a number of its update
    memory    as in `simulation.plan.round_memory`

s, t, u and the memory of a round and of a reply are those nearest to the measured rounds of coordinates, or
of whole shifts, by relative errors.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from fedperfit.protocol.settings.forms import in_form
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.benchmark.record import read_record
from fedperfit.simulation.plan.fitting import (
    COORDINATES,
    WHOLE,
    least_bytes,
    memory_factors,
    numbers_of,
    seconds_factors,
)
from fedperfit.simulation.plan.round_memory import BYTES_PER_CLIENT, BYTES_PER_MESSAGE, moments

SHIPPED = "rounds.json"
"""Record beside this file: `fedperfit benchmark --parts rounds`."""
STATUS_BYTES = {"down": 127, "up": 318}
"""Bytes of the messages by which each client is asked for its status before the first round."""
STATUS_SECONDS = 0.0005
"""Processor seconds of the cloud for each of them, measured with 2,000 clients."""
STATUS_MEMORY = 864
"""Bytes of memory that the cloud takes for each of them while it asks, measured with 2,000 clients."""
NAME_BYTES = 8
"""Bytes of memory for each client that an earlier round asked, and for each whose update it took: its report
names them, by names that all reports share."""
_BROADCAST_PREFIX = 8
"""Bytes of a broadcast before its coordinates: tag and round."""
MOST = 10**12
"""Largest number that can be meant of people, updates, rounds, bytes or seconds."""


_Count = Annotated[int, Field(ge=1, le=MOST)]


class _Round(TypedDict):
    """What the benchmark measured of a round."""

    form: str
    replies: _Count
    seconds: Annotated[float, Field(gt=0, le=MOST)]
    peak_bytes: _Count | None
    bytes_down: _Count
    bytes_up: _Count
    payload_down: _Count
    payload_up: _Count


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

        Raises:
            InputError: No update of the form is so small.
        """
        if up is None:
            return replace(self, payload_down=down or self.payload_down)
        least = least_bytes(self.form)
        if up < least:
            raise InputError(f"up={up}: an update of {self.form} has {least} bytes at least")
        told = up if self.form in WHOLE else _BROADCAST_PREFIX + 4 * numbers_of(self.form, up)
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
        both = moments(numbers, replies, whole=self.form in WHOLE)
        return self.round_bytes + clients + max(one.updates + self.reply_bytes * one.replies for one in both)


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
    measured = in_form(content.get("rounds", []), list[_Round], str(record or SHIPPED))
    rows = [row for row in measured if row["peak_bytes"] is not None]
    lacking = {*COORDINATES, *WHOLE} - {row["form"] for row in rows}
    if lacking:
        names = ", ".join(sorted(lacking))
        raise InputError(f"{record}: has no rounds of {names} with their memory, as a plan needs them")
    return constants_of(rows, form)


def constants_of(rows: Sequence[Mapping[str, Any]], form: str) -> Constants:
    """Return the costs that measured rounds tell.

    Args:
        rows: Measurements of all forms, as in the record.
        form: Form of updates: `votes`, `int8` or `shifts`.
    """
    last = max((row for row in rows if row["form"] == form), key=lambda row: int(row["replies"]))
    alike = WHOLE if form in WHOLE else COORDINATES
    measured = [row for row in rows if row["form"] in alike]
    seconds, memory = seconds_factors(measured), memory_factors(measured)
    return Constants(
        form=form,
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
