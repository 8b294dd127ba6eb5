"""Lines that tell how far a study has come, where somebody watches it and where only a file does."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.status import Status

_SECONDS = 60
"""Least time between two lines where there is no terminal."""


def teller(console: Console, status: Status, *, at_once: bool = False) -> Callable[[str], None]:
    """Return a function that shows a line: as the status, and without a terminal once a minute by itself.

    Args:
        console: Console of the study.
        status: Status on it.
        at_once: Whether the first line is told by itself; else the first minute passes in silence.
    """
    told = None if at_once else time.monotonic()

    def tell(line: str) -> None:
        nonlocal told
        status.update(line)
        if not console.is_terminal and (told is None or time.monotonic() - told > _SECONDS):
            told = time.monotonic()
            console.print(line, markup=False)

    return tell
