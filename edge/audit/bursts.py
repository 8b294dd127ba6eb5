"""Counts what comes too often to be recorded one by one, and hands it on once a second."""

import threading
from collections.abc import Callable

from fedperfit.edge.audit.log import Unrecorded

Counts = dict[str, list[int]]
"""Number of messages and their bytes, by kind of request."""


class Bursts:
    """A counter with a clock of its own; safe to use from many threads."""

    def __init__(self, write: Callable[[Counts], None], *, seconds: float = 1.0) -> None:
        """Start with nothing counted.

        Args:
            write: Gets what was counted; where it raises `Unrecorded` that is counted again.
            seconds: Time between two calls of it.
        """
        self._write, self._seconds = write, seconds
        self._lock = threading.Lock()
        self._counts: Counts = {}
        self._timer: threading.Timer | None = None

    def count(self, call: str, size: int) -> None:
        """Count one message.

        Args:
            call: Kind of request.
            size: Bytes of the message.
        """
        with self._lock:
            self._add(call, 1, size)
            self._arm()

    def flush(self) -> None:
        """Hand on what was counted so far."""
        with self._lock:
            counts, self._counts, self._timer = self._counts, {}, None
        if not counts:
            return
        try:
            self._write(counts)
        except Unrecorded:
            with self._lock:
                for call, (number, size) in counts.items():
                    self._add(call, number, size)
                self._arm()

    def _add(self, call: str, number: int, size: int) -> None:
        total = self._counts.setdefault(call, [0, 0])
        total[0] += number
        total[1] += size

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._seconds, self.flush)
            self._timer.daemon = True
            self._timer.start()
