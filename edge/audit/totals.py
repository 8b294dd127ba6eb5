"""What was sent and refused since the log began, carried on in the first line of every file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedperfit.protocol.system.errors import count_of

SENT, REFUSED, BURST = "sent", "refused", "burst"
"""Events by which messages leave: an answer, a refusal, and many refusals that were only counted."""


@dataclass
class Totals:
    """Counts over the whole life of a log."""

    messages: dict[str, list[int]] = field(default_factory=dict)
    """Number of messages that left and their bytes, by kind of request."""
    refused: int = 0
    """Requests that were refused."""
    refusals: dict[str, int] = field(default_factory=dict)
    """Requests that were refused, by kind; since this is counted."""
    refusal: str = ""
    """Latest refusal in words: time, kind of request and reason."""

    def count(self, event: Mapping[str, Any]) -> None:
        """Add one event of the log."""
        if event["event"] == SENT:
            self._add(event["call"], 1, event["bytes"])
        elif event["event"] == REFUSED:
            self._add(event["call"], 1, event["bytes"])
            self._refuse(event["call"], 1, f"{event['time']} {event['call']}: {event['reason']}")
        elif event["event"] == BURST:
            for call, (count, size) in event["calls"].items():
                self._add(call, count, size)
                self._refuse(
                    call, count, f"{event['time']} {call}: {count_of(count, 'request')} came too fast"
                )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Any) -> "Totals":
        """Go on from what the first line of a file carries; from nothing where it carries none."""
        return cls(**fields) if isinstance(fields, dict) and set(fields) <= set(asdict(cls())) else cls()

    def _add(self, call: str, count: int, size: int) -> None:
        total = self.messages.setdefault(call, [0, 0])
        total[0] += count
        total[1] += size

    def _refuse(self, call: str, count: int, words: str) -> None:
        self.refused += count
        self.refusals[call] = self.refusals.get(call, 0) + count
        self.refusal = words
