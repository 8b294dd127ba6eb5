"""Fetching over and over: the pointer, and the release that it names where the agent does not have it.

What fetches decides nothing. The agent verifies every byte, and says which release it wants.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fedperfit.protocol.system.errors import FedperfitError
from fedperfit.protocol.trust.published import MAX_POINTER_BYTES, POINTER_FILE, release_file

_JITTER = 0.25
"""Share by which a pause is shorter or longer, at random, so that edges do not come all at once."""
_LONGEST_PAUSE = 300.0
"""Seconds between two tries while nothing comes."""


@dataclass(frozen=True)
class Wanted:
    """A release that the agent does not have yet."""

    version: int
    size: int
    """Largest size that its file may have, in bytes."""


class Feed(Protocol):
    """What the agent takes; each call raises FedperfitError where it does not."""

    def point(self, pointer: bytes) -> Wanted | None:
        """Hand over a pointer.

        Args:
            pointer: bytes of the pointer's file.

        Returns:
            What to fetch next; None for nothing.
        """

    def offer(self, release: bytes) -> None:
        """Hand over the release that was wanted.

        Args:
            release: bytes of the release's file.
        """


class Fetcher:
    """Hands the agent what the cloud publishes, one pass at a time."""

    def __init__(
        self,
        get: Callable[[str, int], bytes],
        feed: Feed,
        *,
        seconds: float,
        say: Callable[[str], None],
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Fetch nothing yet.

        Args:
            get: downloads a file by its name, within a number of bytes.
            feed: the agent.
            seconds: time between two passes, about.
            say: takes a line for the log; what keeps failing is said once.
            draw: random number between two others.
        """
        self._get, self._feed, self._seconds, self._say, self._draw = get, feed, seconds, say, draw
        self._failures, self._said = 0, ""

    def step(self) -> float:
        """Fetch once.

        Returns:
            Seconds until the next time: they double with every failure after the first.
        """
        try:
            wanted = self._feed.point(self._get(POINTER_FILE, MAX_POINTER_BYTES))
            if wanted is not None:
                self._feed.offer(self._get(release_file(wanted.version), wanted.size))
                self._say(f"fetched release {wanted.version}")
            self._failures, self._said = 0, ""
        except FedperfitError as error:
            self._failures += 1
            if str(error) != self._said:
                self._said = str(error)
                self._say(self._said)
        pause = self._seconds * 2.0 ** min(max(self._failures - 1, 0), 20)
        pause = min(pause, max(self._seconds, _LONGEST_PAUSE))
        return self._draw(pause * (1 - _JITTER), pause * (1 + _JITTER))
