"""Events of a run: what happened when, on file and passed on."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedperfit.protocol.system.errors import FedperfitError, TooFewClients, refusal_of
from fedperfit.protocol.system.files import append_text, mend_lines

EVENTS = "events.jsonl"
"""File in the run folder: one JSON object per progress event."""

OnEvent = Callable[[dict[str, Any]], None]
"""Function called with every event once it is on file."""

Progress = Callable[[str, dict[str, Any]], None]
"""Function called with an event's name and its values."""


@contextmanager
def recording(folder: Path, on_event: OnEvent) -> Iterator[Progress]:
    """Have what `recorder` makes inside the block; an error that ends the block is its last event, `failed`.

    Args:
        folder: The run folder.
        on_event: Called with each event once it is on file.
    """
    record = recorder(folder, on_event)
    try:
        yield record
    except (FedperfitError, OSError) as error:
        reason = refusal_of(error) if isinstance(error, OSError) else str(error)
        with suppress(OSError):  # the disk may be what ended it
            record("failed", {"reason": reason, "too-few-clients": isinstance(error, TooFewClients)})
        raise


def recorder(folder: Path, on_event: OnEvent) -> Progress:
    """Make a function that appends events with their time to the folder's file, and passes them on.

    Args:
        folder: The run folder.
        on_event: Called with each event once it is on file.
    """
    mend_lines(folder / EVENTS)

    def progress(event: str, values: dict[str, Any]) -> None:
        entry = {"event": event, "time": time.time(), **values}
        append_text(folder / EVENTS, json.dumps(entry) + "\n")
        on_event(entry)

    return progress
