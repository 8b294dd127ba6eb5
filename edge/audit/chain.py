"""Lines that carry the SHA-256 of the line before, so that none is changed, dropped or put in unseen."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedperfit.protocol.system.errors import InputError


@dataclass(frozen=True)
class Link:
    """The end of a chain, which the next line is tied to."""

    number: int = 0
    """Number of the last line, counted from 1."""
    digest: str = "0" * 64
    """SHA-256 of the last line without its newline."""

    def after(self, line: bytes) -> "Link":
        """Return the end of the chain once `line`, with or without its newline, follows."""
        return Link(self.number + 1, hashlib.sha256(line.rstrip(b"\n")).hexdigest())


def chained(events: Sequence[Mapping[str, Any]], link: Link) -> tuple[bytes, Link]:
    """Write events as lines that follow `link`.

    Args:
        events: JSON values of each line.
        link: End of the chain so far.

    Returns:
        The lines, and the new end.
    """
    lines = []
    for event in events:
        fields = {"n": link.number + 1, "prev": link.digest, **event}
        line = json.dumps(fields, separators=(",", ":")).encode() + b"\n"
        lines.append(line)
        link = link.after(line)
    return b"".join(lines), link


def parsed(line: bytes) -> dict[str, Any]:
    """Read one line.

    Raises:
        InputError: It is not a line of a chain.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError("not JSON") from None
    if not isinstance(fields, dict) or type(fields.get("n")) is not int or "prev" not in fields:
        raise InputError("not a line of the log")
    return fields
