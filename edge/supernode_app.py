"""Flower's SuperNode, which asks the cloud for work less often the longer there was none: its own program.

Flower asks every three seconds, for ever; that is most of what an idle machine sends.

    python -P -m fedperfit.edge.supernode_app OPTIONS-OF-FLOWER-SUPERNODE
"""

import time
from collections.abc import Callable

from fedperfit.protocol.system.flower_internals import run_supernode

_LIVELY_SECONDS = 300.0
"""Time after the last message in which nothing is added to Flower's own pause."""
_GROWTH = 1.2
_LEAST, _MOST = 1.0, 27.0
"""Seconds that are added to Flower's three: at first, and at most."""


class Rest:
    """The time between two looks for work."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Begin as if there had been work just now.

        Args:
            clock: Tells a time in seconds.
            sleep: Waits so many seconds.
        """
        self._clock, self._sleep = clock, sleep
        self._last, self._more = clock(), 0.0

    def __call__(self, came: bool) -> None:
        """Wait after a look.

        Args:
            came: Whether there was a message.
        """
        if came:
            self._last, self._more = self._clock(), 0.0
        elif self._clock() - self._last >= _LIVELY_SECONDS:
            self._more = min(max(_GROWTH * self._more, _LEAST), _MOST)
            self._sleep(self._more)


def main() -> None:
    """Run the SuperNode of the command line until it is told to stop."""
    run_supernode(Rest())


if __name__ == "__main__":
    main()
