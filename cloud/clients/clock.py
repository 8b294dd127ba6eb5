"""The clock by which the cloud waits for replies: the machine's own, unless a simulation brings another."""

import time


class Clock:
    """Clock of this machine, whose time is in no result; a simulation's makes time of its own."""

    def now(self) -> float:
        """Return the seconds since some moment in the past."""
        return time.monotonic()

    def wait(self, seconds: float, end: float) -> None:
        """Let time pass until something may have come.

        Args:
            seconds: Seconds after which a look is worth it.
            end: When there is nothing to wait for any longer.
        """
        time.sleep(max(0.0, min(seconds, end - self.now())))

    def start(self, seconds: float) -> None:
        """Begin a training, or go on with one; only simulated time stands still in between.

        Args:
            seconds: Simulated seconds that it has taken so far.
        """

    @property
    def simulated(self) -> float | None:
        """Simulated seconds since the training began; None of a clock that simulates nothing."""
        return None


MACHINE = Clock()
"""The machine's own clock."""
