"""Records for the owner what leaves this machine: one JSON line per message, written before it goes."""

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
    """Description of one field of a message."""

    name: str
    """Name in the schema, behind the names of the fields that hold it."""
    value: str
    """Number or text as it was sent; for bytes a description of what they are."""
    bytes: int
    """Size of the field in the message."""


@dataclass(frozen=True)
class SentMessage:
    """Description of one message to the cloud."""

    call: str
    """Name of the call it answered."""
    bytes: int
    """Size of the message."""
    fields: list[SentField]
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    """Time of recording, ISO 8601 in UTC."""


class Sent:
    """Record of all messages, in one file."""

    def __init__(self, path: Path) -> None:
        """Open the record in a file, which may be absent; a line that a kill left unfinished is mended."""
        self.path = path
        mend_lines(path)

    def add(self, call: str, reply: Message) -> None:
        """Record a reply before it is sent.

        Args:
            call: name of the call it answers.
            reply: message of the bridge's schema.
        """
        self._append(SentMessage(call, reply.ByteSize(), list(_fields(reply))))

    def add_error(self, call: str, kind: str) -> None:
        """Record that a call was answered by the type of an error alone.

        Args:
            call: name of the call.
            kind: name of the error's type.
        """
        self._append(SentMessage(call, len(kind), [SentField("error", kind, len(kind))]))

    def messages(self) -> list[SentMessage]:
        """All recorded messages, oldest first; raises InputError for a broken line."""
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
