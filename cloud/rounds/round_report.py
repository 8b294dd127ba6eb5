"""The report of one round, for the log, the progress display, the checkpoint and the run's report."""

from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from fedperfit.protocol.system.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """The outcome of one round; all of it is reproducible, so its time is simulated or untold."""

    round: int
    """Number of the round, counted from 1."""
    asked: list[str]
    """Names of the clients asked, sorted."""
    admitted: list[str]
    """Names of the clients whose update was admitted, sorted."""
    dropped: dict[str, str]
    """Reasons by client, sorted; includes clients that were late, not those no longer waited for."""
    skipped: bool
    """Whether there were too few updates, so that the shift stayed as it was."""
    items: int
    """Sum of the admitted updates' weights."""
    loss: float | None
    """Weighted mean training loss per item of the clients that share it."""
    bytes_down: int
    """Bytes of whole messages from the cloud in this round."""
    bytes_up: int
    """Bytes of whole messages from the edges in this round."""
    seconds: float | None = None
    """Simulated seconds from the training's beginning to the round's end; None where time is real."""

    def dropped_kinds(self) -> dict[str, int]:
        """Return how many clients were dropped by kind: late, refused by the edge, or not admitted."""
        return dict(Counter(map(_kind, self.dropped.values())))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, without the seconds where there are none."""
        values = asdict(self)
        if self.seconds is None:
            del values["seconds"]
        return values

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Rebuild a report from what `to_json` returned.

        Raises:
            InputError: If a field is missing or unknown.
        """
        if not isinstance(value, dict) or {*value, "seconds"} != {field.name for field in fields(cls)}:
            raise InputError("a round report has missing or unknown fields")
        return cls(**value)


def _kind(reason: str) -> str:
    if reason.startswith("no reply"):
        return "late"
    return "refused by the edge" if reason.startswith("error reply") else "not admitted"
