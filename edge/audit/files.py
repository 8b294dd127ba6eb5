"""The files of a log: numbered from 1, the newest is written; the first line of each carries the chain on.

00000007.jsonl    {"n", "prev", "event": "file", "file": 7, "dropped_files", "dropped_lines", "totals"}
                  {"n", "prev", "time", "event", ...}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedperfit.edge.audit.chain import parsed
from fedperfit.protocol.system.errors import InputError

FILE = "file"
"""Event of the first line of a file."""


def path_of(folder: Path, number: int) -> Path:
    """Return where file `number` stands."""
    return folder / f"{number:08d}.jsonl"


def numbers(folder: Path) -> list[int]:
    """List the numbers of the files that are there, the oldest first."""
    return sorted(int(path.stem) for path in folder.glob("*.jsonl") if path.stem.isdigit())


def head_of(path: Path) -> dict[str, Any]:
    """Read the first line of a file.

    Raises:
        InputError: It does not begin as a file of a log does.
    """
    with path.open("rb") as file:
        head = parsed(file.readline())
    if head.get("event") != FILE:
        raise InputError("does not begin as a file of the log")
    return head


def events(folder: Path, after: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the events after a line of that number, oldest first; what cannot be read is skipped.

    Args:
        folder: Folder of the log.
        after: Number of the last line that is known; 0 for none.
    """
    there = numbers(folder)
    while len(there) > 1 and _starts_by(path_of(folder, there[1]), after + 1):
        del there[0]
    for number in there:
        yield from (event for event in events_in(path_of(folder, number)) if event["n"] > after)


def latest(folder: Path, count: int) -> list[dict[str, Any]]:
    """List the newest events, oldest first, reading no more files than needed.

    Args:
        folder: Folder of the log.
        count: Most events.
    """
    newest: list[dict[str, Any]] = []
    for number in reversed(numbers(folder)):
        newest = [*events_in(path_of(folder, number)), *newest]
        if len(newest) >= count:
            break
    return newest[-count:]


def events_in(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of one file, without its first line and what cannot be read."""
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    event = parsed(line)
                except InputError:
                    continue
                if line.endswith(b"\n") and event.get("event") != FILE:
                    yield event
    except FileNotFoundError:  # dropped meanwhile
        return


def _starts_by(path: Path, number: int) -> bool:
    try:
        return bool(head_of(path)["n"] <= number)
    except (InputError, OSError):
        return False
