"""Costs of a federation: messages, bytes, seconds and memory of its cloud, per round and in all.

    asked     a = min(w / p, n p')      w: updates wanted, p: share of those asked that answer
    replies   min(w, p a)               n: clients, p': share of them that are connected
    seconds   device + max(c, 8 B / bandwidth)      c: processor seconds of the cloud, B: bytes of a round

A client that is asked and does not answer is charged like one that does.
"""

import math
import reprlib
from dataclasses import dataclass

from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.plan.constants import (
    MOST,
    NAME_BYTES,
    STATUS_BYTES,
    STATUS_MEMORY,
    STATUS_SECONDS,
    Constants,
)

_SLOWEST = 1e-6
"""Megabits per second of the thinnest line that can be meant: one bit."""


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What is assumed of people, devices and network.

    Raises:
        InputError: A value is not possible; the message names it.
    """

    clients: int
    """Number of people that are enrolled."""
    connected: float
    """Share of them that are connected when a round begins."""
    answering: float
    """Share of those asked that answer before the deadline."""
    round_size: int
    """Updates that a round wants; 0 is those of all that are connected."""
    rounds: int
    """Rounds of collective training."""
    device_seconds: float
    """Seconds until the slowest device of a round has answered."""
    bandwidth: float
    """Bits per second between the cloud and its clients."""
    once_bytes: int
    """Bytes that each client is sent once, such as the basis of updates."""

    def __post_init__(self) -> None:
        for name, least in (("clients", 1), ("rounds", 1), ("round_size", 0), ("once_bytes", 0)):
            check_count(name.replace("_", "-"), getattr(self, name), least)
        for name in ("connected", "answering"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name):g}: must be a share above 0 and up to 1")
        _check_amount("device-seconds", self.device_seconds, 0.0)
        _check_amount("megabits", self.bandwidth / 1e6, _SLOWEST)


@dataclass(frozen=True)
class Costs:
    """What a federation costs its cloud."""

    clients: int
    """Number of people that are enrolled."""
    connected: int
    """Clients connected when a round begins."""
    asked: int
    """Clients asked in a round."""
    replies: int
    """Updates that come back in a round."""
    messages: int
    """Messages of a round, both ways."""
    bytes_down: float
    """Bytes of a round to clients, without what is sent once."""
    bytes_up: float
    """Bytes of a round from clients."""
    cloud_seconds: float
    """Processor seconds of the cloud in a round; one core does them."""
    round_seconds: float
    """Seconds of a round from its begin to its end."""
    memory: float
    """Peak memory of the cloud's run in bytes, above that of the loaded program."""
    status_messages: int
    """Messages by which all that are connected are asked for their status, once."""
    total_bytes: float
    """Bytes of the whole run, both ways, with the status and what is sent once."""
    total_seconds: float
    """Seconds of the whole run."""


def costs(assumed: Assumptions, constants: Constants) -> Costs:
    """Return what a federation costs its cloud.

    Args:
        assumed: What is assumed of people, devices and network.
        constants: Costs of a message and a reply, as measured.
    """
    connected = max(1, round(assumed.clients * assumed.connected))
    wanted = assumed.round_size or connected
    asked = math.ceil(min(wanted / assumed.answering, connected))
    replies = min(wanted, round(asked * assumed.answering))
    down = asked * (constants.payload_down + constants.envelope_down)
    up = replies * (constants.payload_up + constants.envelope_up)
    work = constants.seconds_of(asked)
    seconds = assumed.device_seconds + max(work, 8 * (down + up) / assumed.bandwidth)
    status = connected * sum(STATUS_BYTES.values())
    reached = connected * -math.expm1(assumed.rounds * _log_missed(asked / connected))
    once = reached * assumed.once_bytes
    total = status + once + assumed.rounds * (down + up)
    status_seconds = max(connected * STATUS_SECONDS, 8 * status / assumed.bandwidth)
    memory = constants.memory_of(connected, asked, replies)
    memory += NAME_BYTES * (assumed.rounds - 1) * (asked + replies)
    return Costs(
        clients=assumed.clients,
        connected=connected,
        asked=asked,
        replies=replies,
        messages=asked + replies,
        bytes_down=down,
        bytes_up=up,
        cloud_seconds=work,
        round_seconds=seconds,
        memory=max(memory, connected * STATUS_MEMORY),
        status_messages=2 * connected,
        total_bytes=total,
        total_seconds=status_seconds + assumed.rounds * seconds + 8 * once / assumed.bandwidth,
    )


def _log_missed(share: float) -> float:
    """Return the logarithm of the share of clients that a round does not ask."""
    return math.log1p(-share) if share < 1 else -math.inf


def _check_amount(name: str, value: float, least: float) -> None:
    if not least <= value <= MOST:
        raise InputError(f"{name}={value:g}: must be a number from {least:g} to {MOST:g}")


def check_count(name: str, value: int, least: int) -> None:
    """Check a number of people, updates, rounds or bytes.

    Args:
        name: Name of the option.
        value: Its value.
        least: Smallest value that is possible.

    Raises:
        InputError: The value is smaller, or larger than can be meant.
    """
    if value < least:
        raise InputError(f"{name}={reprlib.repr(value)}: must be at least {least}")
    if value > MOST:
        raise InputError(f"{name}={reprlib.repr(value)}: must be {MOST:,} at most")
