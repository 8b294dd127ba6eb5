"""The owner's record of what left this machine: one JSON line per message, written before it goes."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from fedperfit.protocol.shift.packing import read_header
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import mend_lines, read_json_lines

_STATISTICS = {
    "moments": "sums over preference pairs, and their two leading directions",
    "sums": "a probe's loss and gradient, summed over preference pairs",
    "pull": "gradient of the mean loss over training pairs at each layer, mean length of the states",
}


@dataclass(frozen=True)
class SentField:
    """One field of a message."""

    name: str
    value: str
    """A number or name as it was sent; of bytes, what they are."""
    bytes: int


@dataclass(frozen=True)
class SentMessage:
    """One message."""

    call: str
    bytes: int
    fields: list[SentField]
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))


class Sent:
    """The record in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        mend_lines(path)

    def add(self, call: str, reply: Message) -> None:
        """Record a reply."""
        self._append(SentMessage(call, reply.ByteSize(), list(_fields(reply))))

    def add_error(self, call: str, kind: str) -> None:
        """Record that a call was answered by the kind of an error alone."""
        self._append(SentMessage(call, len(kind), [SentField("error", kind, len(kind))]))

    def messages(self) -> list[SentMessage]:
        """All, oldest first; raises InputError for a broken line."""
        if not self.path.exists():
            return []
        try:
            return [_message(line) for line in read_json_lines(self.path)]
        except (TypeError, KeyError):
            raise InputError(f"{self.path}: a line is not a record of a message") from None

    def _append(self, message: SentMessage) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(message)) + "\n")


def _fields(reply: Message, within: str = "") -> Iterator[SentField]:
    for described, value in reply.ListFields():
        name = within + described.name
        if described.message_type is not None:
            yield from _fields(value, f"{name}.")
            continue
        alone = type(reply)()
        alone.MergeFrom(reply)
        for other, _ in reply.ListFields():
            if other.name != described.name:
                alone.ClearField(other.name)
        text = _STATISTICS.get(name) or _text(value)
        yield SentField(name, text, alone.ByteSize())


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        header, _ = read_header(value)
        shape = header.shape
        return f"collective shift, layers {', '.join(map(str, shape.layers))}, rank {shape.rank}"
    if isinstance(value, str | int | float):
        return str(value)
    return " ".join(map(str, value))


def _message(line: dict[str, Any]) -> SentMessage:
    fields = [SentField(**one) for one in line["fields"]]
    return SentMessage(**{**line, "fields": fields})
