"""What the clients of one round sent, so that a round that was killed need not be asked for again."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from fedperfit.cloud.clients.sealed_gate import SealedUpdate
from fedperfit.cloud.rounds.forms import Admitted
from fedperfit.protocol.messages.ledger import Entry

_Sent = TypeVar("_Sent", bound=Admitted)


@dataclass
class Collection(Generic[_Sent]):
    """The replies of one round, as far as they came."""

    asked: list[str]
    """Names of the clients asked, sorted."""
    updates: dict[str, _Sent] = field(default_factory=dict)
    """Admitted updates by client."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Reasons by client that sent none, or none to be admitted."""
    sent: list[Entry] = field(default_factory=list)
    """Ledger entries of all messages."""

    @property
    def admitted(self) -> list[_Sent]:
        """The admitted updates, sorted by client."""
        return [self.updates[client] for client in sorted(self.updates)]


def _from_hex(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("not hexadecimal digits")
    return bytes.fromhex(value)


def sealed_to_json(collection: Collection[SealedUpdate]) -> dict[str, Any]:
    """Return what a round of sealed updates has, as JSON values."""
    return {
        "asked": collection.asked,
        "dropped": collection.dropped,
        "sent": [asdict(entry) for entry in collection.sent],
        "updates": {
            update.client: [envelope.hex() for envelope in update.envelopes] for update in collection.admitted
        },
    }


Hexadecimal = Annotated[bytes, BeforeValidator(_from_hex)]
"""Bytes that JSON holds as hexadecimal digits."""


class SealedRound(TypedDict):
    """Form of what `sealed_to_json` makes, with the session that it is for."""

    session: str
    asked: list[str]
    dropped: dict[str, str]
    sent: list[Entry]
    updates: dict[str, list[Hexadecimal]]


def sealed_from_json(values: SealedRound) -> Collection[SealedUpdate]:
    """Read what `sealed_to_json` made."""
    updates = {client: SealedUpdate(client, sealed) for client, sealed in values["updates"].items()}
    return Collection(values["asked"], updates, values["dropped"], values["sent"])
