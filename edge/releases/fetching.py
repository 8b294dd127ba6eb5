"""Fetching over and over: the pointer, and the release that it names where the agent does not have it.

What fetches decides nothing. The agent verifies every byte, and says which release it wants. Where a mirror
is asked, the cloud itself is too, once the mirror has failed a few times: what it gives has expired, does not
verify, or does not come.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedperfit.protocol.system.errors import FedperfitError

_JITTER = 0.25
"""Share by which a pause is shorter or longer, at random, so that edges do not come all at once."""
_LONGEST_PAUSE = 300.0
"""Seconds between two tries while nothing comes."""
_PATIENCE = 3
"""Failures in a row after which the last source is asked once in place of the first."""
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
    digest: str = ""
    """Digest of the release to be fetched; empty for none."""
    issued: str = ""
    """When the pointer was issued, once the agent has verified and kept it; empty where it has not."""


class Source(Protocol):
    """Who has the files; each call raises NotFetched where they do not come."""

    def pointer(self) -> bytes:
        """Return the pointer that is in place now."""

    def release(self, told: Told) -> bytes:
        """Download a release.

        Args:
            told: which one, as the agent said.
        """

    def kept(self, pointer: bytes, told: Told) -> None:
        """Note what the agent said to a pointer: one that it has kept need not come again.

        Args:
            pointer: bytes of the pointer's file.
            told: the agent's answer.
        """


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
        sources: Sequence[Source],
        feed: Feed,
        *,
        seconds: float,
        say: Callable[[str], None],
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Fetch nothing yet.

        Args:
            sources: who has the files: the one that is asked, and the one that is asked where it fails.
            feed: the agent.
            seconds: time between two passes, about.
            say: takes a line for the log; what keeps failing is said once.
            draw: random number between two others.
        """
        self._sources, self._feed, self._seconds, self._say, self._draw = sources, feed, seconds, say, draw
        self._failures, self._said = 0, ""
        self._renewing: threading.Thread | None = None
        self._renewal_after = -math.inf

    def step(self) -> float:
        """Fetch once.

        Returns:
            Seconds until the next time: they double with every failure after the first.
        """
        source = self._sources[-1 if self._failures % (_PATIENCE + 1) == _PATIENCE else 0]
        try:
            pointer = source.pointer()
            told = self._feed.point(pointer)
            source.kept(pointer, told)
            if told.version:
                self._feed.offer(source.release(told))
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
