"""The byte ledger: one entry per message, so that bytes are measured and never multiplied."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json_lines


@dataclass(frozen=True)
class Entry:
    """One message between cloud and edge."""

    phase: str
    """`train`, `pulls`, `directions`, `personalize`, `evaluate`, `status`, or the name of a study."""
    round: int
    """Federation round, or evaluation of the probes, from 1; 0 outside of both."""
    client: str
    direction: str
    """`down` (cloud to edge) or `up`."""
    payload: int
    """Bytes of the packed shift or of the statistics in it, 0 where there are none."""
    message: int
    """Bytes of the whole message as protobuf: payload, other records, Flower's metadata."""


class Ledger:
    """Appends entries to a JSON-lines file, and reads them back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, entries: list[Entry]) -> None:
        """Append in one write."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(asdict(entry)) + "\n" for entry in entries))

    def entries(self) -> list[Entry]:
        """All entries in order; none when nothing was sent yet. Raises InputError for a broken line."""
        if not self.path.exists():
            return []
        try:
            return [Entry(**fields) for fields in read_json_lines(self.path)]
        except TypeError:
            raise InputError(f"{self.path}: a line is not a ledger entry") from None
