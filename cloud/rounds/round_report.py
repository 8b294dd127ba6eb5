"""What one round came to, for the log, the progress display, the checkpoint and the report."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from fedperfit.protocol.system.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """One round; everything in it is reproducible, so no wall-clock time."""

    round: int
    """Counted from 1."""
    asked: list[str]
    """Clients asked, sorted."""
    admitted: list[str]
    """Clients whose update was admitted, sorted."""
    dropped: dict[str, str]
    """Client to reason, sorted; a client that did not reply in time is here, one not waited for is not."""
    skipped: bool
    """Too few updates: the shift stayed as it was."""
    items: int
    """Sum of the admitted updates' weights."""
    loss: float | None
    """Weighted mean training loss per item of the clients that share it."""
    bytes_down: int
    """Whole messages from the cloud in this round."""
    bytes_up: int
    """Whole messages from the edges in this round."""

    def to_json(self) -> dict[str, Any]:
        """Field names and values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The inverse of `to_json`; raises InputError for other fields."""
        if not isinstance(value, dict) or set(value) != {field.name for field in fields(cls)}:
            raise InputError("a round report has missing or unknown fields")
        return cls(**value)
