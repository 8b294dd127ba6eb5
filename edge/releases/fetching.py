"""Fetching over and over: the pointer, and the release that it names where the agent does not have it.

What fetches decides nothing. The agent verifies every byte, and says which release it wants.
"""

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fedperfit.protocol.system.errors import FedperfitError
from fedperfit.protocol.trust.published import MAX_POINTER_BYTES, POINTER_FILE, release_file

_JITTER = 0.25
"""Share by which a pause is shorter or longer, at random, so that edges do not come all at once."""
_LONGEST_PAUSE = 300.0
"""Seconds between two tries while nothing comes."""
_RENEWAL_PAUSE = 3600.0
"""Seconds after a renewal that the agent refused, before it is asked again."""


@dataclass(frozen=True)
class Told:
    """What the agent says to a pointer."""

    version: int = 0
    """Version of the release to be fetched; 0 for none."""
    size: int = 0
    """Largest size that its file may have, in bytes."""
    stale: bool = False
    """Whether its personal shift is of another release than the one in force."""


class Feed(Protocol):
    """What the agent takes; each call raises FedperfitError where it does not."""

    def point(self, pointer: bytes) -> Told:
        """Hand over a pointer.

        Args:
            pointer: bytes of the pointer's file.
        """

    def offer(self, release: bytes) -> None:
        """Hand over the release that was wanted.

        Args:
            release: bytes of the release's file.
        """

    def renew(self) -> None:
        """Have the personal shift renewed; returns when that is done, which may take hours."""


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
        self._renewing: threading.Thread | None = None
        self._renewal_after = -math.inf

    def step(self) -> float:
        """Fetch once.

        Returns:
            Seconds until the next time: they double with every failure after the first.
        """
        try:
            told = self._feed.point(self._get(POINTER_FILE, MAX_POINTER_BYTES))
            if told.version:
                self._feed.offer(self._get(release_file(told.version), told.size))
                self._say(f"fetched release {told.version}")
            elif told.stale:
                self._renew()
            self._failures, self._said = 0, ""
        except FedperfitError as error:
            self._failures += 1
            if str(error) != self._said:
                self._said = str(error)
                self._say(self._said)
        pause = self._seconds * 2.0 ** min(max(self._failures - 1, 0), 20)
        pause = min(pause, max(self._seconds, _LONGEST_PAUSE))
        return self._draw(pause * (1 - _JITTER), pause * (1 + _JITTER))

    def _renew(self) -> None:
        """Have the personal shift renewed beside the fetching, unless that is under way or failed lately."""
        if self._renewing is not None and self._renewing.is_alive():
            return
        if time.monotonic() < self._renewal_after:
            return
        self._renewing = threading.Thread(target=self._wait_for_renewal, name="renewal", daemon=True)
        self._renewing.start()

    def _wait_for_renewal(self) -> None:
        try:
            self._feed.renew()
        except FedperfitError as error:
            self._renewal_after = time.monotonic() + _RENEWAL_PAUSE
            self._say(str(error))
