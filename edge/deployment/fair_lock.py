"""A first-come lock on the model; long holders yield between their steps."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from fedperfit.edge.writing.streaming import Alive

_PATIENCE = 0.2
"""Seconds between two checks whether a waiting caller is still there."""


class Cancelled(Exception):
    """The caller is gone, or the agent is stopping."""


class Busy(Exception):
    """Too many callers are waiting for the model already."""


class FairLock:
    """Lock whose waiters get it in the order in which they came."""

    def __init__(self, most: int) -> None:
        """Start unlocked; most: number of callers that may wait while one holds the lock."""
        self._most = most
        self._line: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def turn(self, alive: Alive) -> Iterator[None]:
        """Wait for the lock and hold it inside the block.

        Raises:
            Busy: as many callers as may are waiting already.
            Cancelled: `alive` said while waiting that the caller is gone.
        """
        me = object()
        with self._changed:
            if len(self._line) > self._most:
                raise Busy
            self._line.append(me)
            while self._line[0] is not me:
                self._changed.wait(_PATIENCE)
                if not alive():
                    self._leave(me)
                    raise Cancelled
        try:
            yield
        finally:
            with self._changed:
                self._leave(me)

    def give_way(self) -> None:
        """Let all who wait go first; to be called by the holder."""
        with self._changed:
            if len(self._line) > 1:
                me = self._line.popleft()
                self._line.append(me)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._line[0] is me)

    def _leave(self, who: object) -> None:
        self._line.remove(who)
        self._changed.notify_all()
