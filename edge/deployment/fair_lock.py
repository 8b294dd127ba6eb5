"""Whose turn it is at the model: first come, first served, and long work gives way between its steps."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from fedperfit.edge.engine.streaming import Alive

_PATIENCE = 0.2
"""Seconds between two looks at whether a waiting caller is still there."""


class Cancelled(Exception):
    """The caller is gone, or the agent is stopping."""


class Busy(Exception):
    """Too many are waiting already."""


class FairLock:
    """A line; its head has the turn."""

    def __init__(self, most: int) -> None:
        """most: that may wait while one has the turn."""
        self._most = most
        self._line: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def turn(self, alive: Alive) -> Iterator[None]:
        """Wait for the turn and have it; raises Busy, or Cancelled when the caller is gone meanwhile."""
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
        """Whoever has the turn lets all who wait go first."""
        with self._changed:
            if len(self._line) > 1:
                me = self._line.popleft()
                self._line.append(me)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._line[0] is me)

    def _leave(self, who: object) -> None:
        self._line.remove(who)
        self._changed.notify_all()
