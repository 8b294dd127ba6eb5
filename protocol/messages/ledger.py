"""The byte ledger: one entry per message, so that bytes are measured and never estimated."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from fedperfit.protocol.settings.forms import read_form_lines
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import append_text, write_atomic

Direction = Literal["down", "up"]
"""Way of a message: `down` (cloud to edge) or `up`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The size of one message between cloud and edge."""

    phase: str
    """Name of a phase: `train`, `pulls` (layer gradients), `directions`, `personalize`, `evaluate`, `status`,
    or that of a study."""
    round: int
    """Federation round, or evaluation of the probes, from 1; 0 outside both."""
    client: str
    """Name of the client."""
    direction: Direction
    """Way of the message: `down` or `up`."""
    payload: int
    """Bytes of the packed shift or of the statistics, 0 if the message carries neither."""
    message: int
    """Bytes of the whole message as protobuf: payload, other records, Flower's metadata."""
    tensors: Mapping[str, int] = field(default_factory=dict)
    """Bytes of what the payload is made of, by name; missing in ledgers of earlier versions."""


class Ledger:
    """A JSON-lines file of entries that only grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        """File of the entries; missing until the first one."""
        self._counted = (0, 0)
        """Bytes of the file that were counted, and the entries in them."""

    def add(self, entries: list[Entry]) -> None:
        """Append entries; a killed process leaves at most one broken line, the last."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_text(self.path, "".join(json.dumps(asdict(entry)) + "\n" for entry in entries))

    def count(self) -> int:
        """Count the entries, of which each is looked at once however often they are counted."""
        if not self.path.exists():
            return 0
        begin, entries = self._counted
        with self.path.open("rb") as file:
            file.seek(begin)
            entries += sum(1 for line in file if line.strip())
            self._counted = (file.tell(), entries)
        return entries

    def cut(self, keep: int) -> None:
        """Remove all entries after the first so many, and what a killed process left of one.

        Args:
            keep: Number of entries that stay.

        Raises:
            InputError: There are fewer.
        """
        data = self.path.read_bytes() if self.path.exists() else b""
        lines = data.splitlines(keepends=True)
        if len(lines) < keep or not all(line.endswith(b"\n") for line in lines[:keep]):
            raise InputError(f"{self.path}: {len(lines)} entries, but the last checkpoint counts {keep}")
        kept = b"".join(lines[:keep])
        if kept != data:
            write_atomic(self.path, kept)
        self._counted = (len(kept), keep)

    def entries(self) -> list[Entry]:
        """Return all entries in order; none if nothing was sent yet.

        Raises:
            InputError: Naming the file, if a line is not an entry.
        """
        if not self.path.exists():
            return []
        return read_form_lines(self.path, Entry)
