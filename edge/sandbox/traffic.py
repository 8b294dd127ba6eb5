"""Bytes that pass between a person's machine and the cloud, counted where they leave the sandbox.

They are what the network carries above TCP: TLS, the headers of Flower's requests, its polls while nothing
happens, and the messages. The log of messages (`edge.audit`) has what is in them.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from fedperfit.protocol.system.errors import FedperfitError
from fedperfit.protocol.system.files import read_json, write_json

logger = logging.getLogger("fedperfit.edge")
_DAYS = 31
"""Newest days that are kept."""
_WRITE_SECONDS = 30.0
Days = dict[str, tuple[int, int]]
"""Bytes sent and received by day, in UTC."""


class Traffic:
    """A context in which bytes are counted, in a file that is written twice a minute and at the end."""

    def __init__(self, path: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Go on from what a file holds.

        Args:
            path: The file.
            clock: Tells the time in UTC.
        """
        self._path, self._clock = path, clock
        self._days, self._written = read_traffic(path), time.monotonic()

    def __enter__(self) -> "Traffic":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()

    def count(self, up: int, down: int) -> None:
        """Add bytes that were sent and received; called in one thread."""
        day = self._clock().date().isoformat()
        sent, received = self._days.get(day, (0, 0))
        self._days[day] = (sent + up, received + down)
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self._write()

    def _write(self) -> None:
        self._days = dict(sorted(self._days.items())[-_DAYS:])
        self._written = time.monotonic()
        try:
            write_json(self._path, self._days)
        except (OSError, FedperfitError) as error:  # a full disk cuts no connection
            logger.warning("bytes on the wire could not be noted: %s", error)


def read_traffic(path: Path) -> Days:
    """Read what was counted; nothing where there is no such file, or none of ours."""
    days: Any = {}
    with suppress(FedperfitError):
        days = read_json(path)
    try:
        return {str(day): (int(up), int(down)) for day, (up, down) in days.items()}
    except (AttributeError, TypeError, ValueError):
        return {}
