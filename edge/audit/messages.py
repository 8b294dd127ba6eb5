"""What a message between cloud and edge holds, in words: each field with its bytes."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from fedperfit.protocol.shift.packing import MAGIC, read_header
from fedperfit.protocol.system.errors import InputError

_STATISTICS = {
    "moments": "sums over preference pairs, and their two leading directions",
    "sums": "a probe's loss and gradient, summed over preference pairs",
    "sealed": "changed coordinates of the collective shift, sealed to the members of a committee",
    "sum": "sum of what others sealed to this machine, as member of a committee",
    "update": "changed coordinates of the collective shift in the agreed basis",
    "pull": "gradient of the mean loss over training pairs at each layer, mean length of the states",
}
_LONGEST = 200
"""Characters of a text of the cloud's that are kept."""


@dataclass(frozen=True)
class SentField:
    """One field of a message."""

    name: str
    value: str
    """A number or name as it was sent; of bytes, what they are."""
    bytes: int


@dataclass(frozen=True)
class SentMessage:
    """One message that left this machine."""

    call: str
    """Kind of request that it answers."""
    bytes: int
    fields: list[SentField]
    time: str
    """Time at which it left: ISO 8601, UTC."""
    number: int = 0
    """Line of the log; 0 for a message that an earlier version recorded."""
    reason: str = ""
    """Why the request was refused, for the owner alone; empty where it was answered."""

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> "SentMessage":
        """Read an event of the log.

        Raises:
            InputError: It is not a message.
        """
        try:
            fields = [SentField(**field) for field in event["fields"]]
            number, reason = event.get("n", 0), event.get("reason", "")
            return cls(event["call"], event["bytes"], fields, event["time"], number, reason)
        except (KeyError, TypeError):
            raise InputError("not a record of a message") from None


def old_messages(path: Path) -> Iterator[SentMessage]:
    """Yield the messages that an earlier version recorded in `sent.jsonl`; unreadable lines are skipped."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                yield SentMessage.of(json.loads(line))
            except (ValueError, RecursionError, AttributeError):
                continue


def fields_of(reply: Message, within: str = "") -> Iterator[SentField]:
    """Yield each field of a reply; its bytes add up to the reply's.

    Args:
        reply: Message that leaves.
        within: Name of the message it is part of, with a dot.
    """
    for described, value in reply.ListFields():
        name = within + described.name
        if described.message_type is not None:
            yield from fields_of(value, f"{name}.")
            continue
        alone = type(reply)()
        alone.MergeFrom(reply)
        for other, _ in reply.ListFields():
            if other.name != described.name:
                alone.ClearField(other.name)
        yield SentField(name, _told(name, value), alone.ByteSize())


def _told(name: str, value: Any) -> str:
    """What a field holds; an update is a packed shift, which tells its shape, or coordinates."""
    if name in _STATISTICS and not (isinstance(value, bytes) and value.startswith(MAGIC)):
        return _STATISTICS[name]
    return in_words(value)


def settings_of(request: Message) -> dict[str, Any]:
    """Return every setting of a request, also where it is the default; of bytes and long texts what they are.

    Args:
        request: Message of the cloud's.
    """
    settings: dict[str, Any] = {}
    for described in request.DESCRIPTOR.fields:
        value = getattr(request, described.name)
        if described.message_type is not None:
            settings |= settings_of(value)
        elif isinstance(value, bool | int | float):
            settings[described.name] = value
        else:
            settings[described.name] = in_words(value)
    return settings


def in_words(value: Any) -> str:
    """Describe a value of a field in at most a few hundred characters."""
    if isinstance(value, bytes):
        return _bytes_in_words(value)
    if isinstance(value, str | int | float):
        text = str(value)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
    parts = list(value)
    if parts and isinstance(parts[0], bytes):
        return f"{len(parts)} parts, {sum(map(len, parts))} bytes"
    text = " ".join(map(str, parts))
    return in_words(text) if parts and isinstance(parts[0], str) else text


def _bytes_in_words(data: bytes) -> str:
    try:
        shape = read_header(data)[0].shape
        layers = in_words(", ".join(map(str, shape.layers)))
        return f"collective shift, layers {layers}, rank {shape.rank}"
    except InputError:
        return f"{len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()[:16]}"
