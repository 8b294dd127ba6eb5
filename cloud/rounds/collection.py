"""What the clients of one round sent, so that a round that was killed need not be asked for again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

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


def sealed_from_json(values: Mapping[str, Any]) -> Collection[SealedUpdate]:
    """Read what `sealed_to_json` made."""
    return Collection(
        values["asked"],
        {
            client: SealedUpdate(client, [bytes.fromhex(envelope) for envelope in sealed])
            for client, sealed in values["updates"].items()
        },
        values["dropped"],
        [Entry(**entry) for entry in values["sent"]],
    )
