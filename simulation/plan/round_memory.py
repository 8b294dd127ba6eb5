"""Memory of a round: what waits of updates, what is averaged of them, and what is kept of each client.

While replies come, updates wait in fp32, in memory up to 16 MiB, and all in a file where there are more. Then
coordinates are averaged in fp64, part by part, and whole shifts one by one. The peak is the larger of

    c + a m + k min(r, L / 4n) + min(4 n r, L) + v n  while replies come
    c + a m + k r + (4 n r <= L) 4 n r + A(n, r)      while they are averaged

    r: replies, m: clients asked, n: numbers of an update, L: 16 MiB, A: what is averaged at once
    c: bytes of any round, a: of a message sent, k: of a reply, v: of a number that is read

The benchmark measures c and k.
"""

from dataclasses import dataclass

from fedperfit.cloud.clients.memory_limits import WAITING_BYTES, rows_at_once

BYTES_PER_CLIENT = 250
"""Bytes for each connected client in a round that is not asked."""
BYTES_PER_MESSAGE = 380
"""Bytes for each message that was sent and is waited for, measured with 10,000 of them."""
_BYTES_PER_TENSOR = 620
"""Bytes of an update beside its numbers while it is averaged, measured with 100,000 of them."""
_READ_BYTES = 60
"""Bytes for each number of the one reply that is read at a time: message, copies, what is checked."""
_AVERAGED_BYTES = 45
"""Bytes for each number of whole shifts that are averaged one after the other: sums in fp64, one shift."""
_POLAR_BYTES = 1_700_000
"""Bytes that the mean of whole shifts takes of whatever size, for the singular value decomposition."""


@dataclass(frozen=True)
class Moment:
    """What a round has in memory at one moment."""

    updates: float
    """Bytes of updates that are in memory."""
    replies: int
    """Replies that have come by then."""


def moments(numbers: int, replies: int, *, whole: bool) -> tuple[Moment, Moment]:
    """Return the moments of a round that may have most in memory: as updates come, and as they are averaged.

    Args:
        numbers: Numbers of an update.
        replies: Replies to the round.
        whole: Whether updates are whole shifts.
    """
    size = 4 * numbers
    waiting = min(replies, max(1, WAITING_BYTES // size))
    kept = size * replies if size * replies <= WAITING_BYTES else 0
    averaged = _POLAR_BYTES + _AVERAGED_BYTES * numbers if whole else _averaged(numbers, replies)
    return Moment(size * waiting + _READ_BYTES * numbers, waiting), Moment(kept + averaged, replies)


def _averaged(numbers: int, replies: int) -> float:
    """Return the bytes of coordinates that are averaged at once.

    A part is there in fp32, once each and once together, and then in fp64; of the part before, fp64 is left.
    """
    rows = rows_at_once(numbers)
    first, second = min(replies, rows), min(max(replies - rows, 0), rows)
    return numbers * max(16 * first, 8 * first + 16 * second) + _BYTES_PER_TENSOR * first
