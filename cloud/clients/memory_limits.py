"""How much of a round's updates is in memory, at most; `fedperfit plan` reckons with it."""

WAITING_BYTES = 16 << 20
"""Bytes of updates, in fp32, that wait in memory; more of them wait in a file."""
_MOST_ROWS = 4096
_MOST_NUMBERS = 1 << 20


def rows_at_once(numbers: int) -> int:
    """Return how many updates in a basis are averaged at once: 4096, or as many as have 2^20 numbers.

    Args:
        numbers: Number n of coordinates of an update.
    """
    return max(1, min(_MOST_ROWS, _MOST_NUMBERS // numbers))
