"""How often each kind of request is answered: a token bucket per kind."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fedperfit.protocol.system.errors import FedperfitError


class TooManyRequests(FedperfitError):
    """More requests of a kind than its bucket has tokens for."""


@dataclass(frozen=True)
class Rate:
    """Capacity and refill of one bucket."""

    per_second: float
    """Tokens added per second."""
    burst: int
    """Most tokens it holds."""


STATUS = Rate(2.0, 20)
PROBE = STATUS
"""A search for a group's directions asks dozens of times in a row; a probe takes far less than a second."""
OTHERS = Rate(1.0, 5)
_RATES = {"status": STATUS, "probe": PROBE}


class Rates:
    """The buckets of one agent, full at first; safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Fill the buckets.

        Args:
            clock: Seconds since any moment.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, kind: str) -> None:
        """Take a token.

        Args:
            kind: Kind of request; one of the few of the bridge.

        Raises:
            TooManyRequests: The bucket is empty.
        """
        rate = _RATES.get(kind, OTHERS)
        with self._lock:
            now = self._clock()
            tokens, before = self._buckets.get(kind, (float(rate.burst), now))
            tokens = min(tokens + (now - before) * rate.per_second, rate.burst)
            if tokens < 1:
                self._buckets[kind] = tokens, now
                raise TooManyRequests(f"{kind}: at most {rate.per_second:g} a second")
            self._buckets[kind] = tokens - 1, now
