"""Bytes that pass between a person's machine and the cloud, counted where they leave the sandbox.

They are what the network carries above TCP: TLS, the headers of Flower's requests, its polls while nothing
happens, and the messages. The log of messages (`edge.audit`) has what is in them.
"""

import logging
import threading
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
_writing = threading.Lock()
"""Held while a file is read and written: a program counts what leaves by several ways in one file."""
Days = dict[str, tuple[int, int]]
"""Bytes sent and received by day, in UTC."""


class Traffic:
    """A context in which bytes are counted, in a file that is written twice a minute and at the end."""

    def __init__(self, path: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Add to what a file holds.

        Args:
            path: The file.
            clock: Tells the time in UTC.
        """
        self._path, self._clock = path, clock
        self._since: Days = {}
        self._written = time.monotonic()

    def __enter__(self) -> "Traffic":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()

    def count(self, up: int, down: int) -> None:
        """Add bytes that were sent and received; called in one thread."""
        _add(self._since, self._clock().date().isoformat(), up, down)
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        with _writing:
            days = read_traffic(self._path)
            for day, (up, down) in self._since.items():
                _add(days, day, up, down)
            try:
                write_json(self._path, dict(sorted(days.items())[-_DAYS:]))
            except (OSError, FedperfitError) as error:  # a full disk cuts no connection
                logger.warning("bytes on the wire could not be noted: %s", error)
            else:
                self._since = {}


def _add(days: Days, day: str, up: int, down: int) -> None:
    sent, received = days.get(day, (0, 0))
    days[day] = (sent + up, received + down)


def read_traffic(path: Path) -> Days:
    """Read what was counted; nothing where there is no such file, or none of ours."""
    days: Any = {}
    with suppress(FedperfitError):
        days = read_json(path)
    try:
        return {str(day): (int(up), int(down)) for day, (up, down) in days.items()}
    except (AttributeError, TypeError, ValueError):
        return {}
