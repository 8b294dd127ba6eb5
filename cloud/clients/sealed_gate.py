"""The admission gate of sealed updates: form and signature are all that can be checked."""

from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Message

from fedperfit.cloud.clients.coordinate_gate import first_update
from fedperfit.cloud.clients.metric_rules import Metric
from fedperfit.cloud.clients.replies import Rejected, check_count, exact_keys, guarded, open_records
from fedperfit.protocol.messages.keys import (
    BAD_KEY,
    ITEMS_KEY,
    ROUND_KEY,
    SUM_KEY,
    SUM_RECORD,
    UPDATE_KEY,
    UPDATE_RECORD,
)
from fedperfit.protocol.secure_sums.field import Elements
from fedperfit.protocol.secure_sums.sealing import envelopes
from fedperfit.protocol.secure_sums.session import Session
from fedperfit.protocol.shift.coordinate_packing import TAG_BYTES, Agreement


@dataclass(frozen=True)
class SealedUpdate:
    """An admitted update of which nothing is known but its sender."""

    client: str
    """Name of the client."""
    envelopes: list[bytes]
    """What it sealed to each member, by place."""
    items: int = 1
    """Weight of the client, that of every other."""
    metrics: dict[str, Metric] = field(default_factory=dict)
    """Sums over its pairs, which are never told."""
    trained: int = 1
    """Training pairs, which are not told either."""


class SealedGate:
    """Admits at most one sealed update per client to one round."""

    def __init__(self, session: Session, agreement: Agreement) -> None:
        """Set what an update of this round must be sealed for.

        Args:
            session: The sum of the round.
            agreement: Basis, codec and round that the update's tag must tell.
        """
        self.session, self.agreement = session, agreement
        self._seen: set[str] = set()

    def admit(self, client: str, reply: Message) -> SealedUpdate:
        """Return the update that a reply holds.

        Args:
            client: Name of the client.
            reply: Its reply to contribute.

        Raises:
            Rejected: If the reply cannot be trusted.
            BasisMissing: If the client asks for the basis; no other exception leaves here.
        """
        record = first_update(client, reply, self._seen)
        return guarded(lambda: self._admit(client, record))

    def _admit(self, client: str, record: ConfigRecord) -> SealedUpdate:
        exact_keys(record, {UPDATE_KEY, ITEMS_KEY, ROUND_KEY}, UPDATE_RECORD)
        if check_count(record[ITEMS_KEY], record[ROUND_KEY], round=self.session.round, least=1) != 1:
            raise Rejected(f"{ITEMS_KEY} tells more of a sealed update than that it is one")
        data = record[UPDATE_KEY]
        if not isinstance(data, bytes):
            raise Rejected(f"{UPDATE_KEY} is not bytes")
        if data[:TAG_BYTES] != self.agreement.tag:
            raise Rejected("the update belongs to another basis, codec or round")
        return SealedUpdate(client, envelopes(data[TAG_BYTES:], self.session, client))


class BadShares(Exception):
    """A member cannot open what some clients sealed to it; `clients` are their names."""

    def __init__(self, clients: list[str]) -> None:
        super().__init__(f"it cannot open the shares of {', '.join(clients)}")
        self.clients = clients


def admit_sum(reply: Message, session: Session, contributors: set[str]) -> Elements:
    """Return the shares of the sum that a member tells, (columns,).

    Args:
        reply: The member's reply.
        session: The sum of the round.
        contributors: Names of the clients in it.

    Raises:
        Rejected: If the reply cannot be trusted.
        BadShares: If the member names clients whose shares it cannot open.
    """

    def read() -> Elements | list[str]:
        record = open_records(reply, required={SUM_RECORD: ConfigRecord})[SUM_RECORD]
        key = BAD_KEY if BAD_KEY in record else SUM_KEY
        exact_keys(record, {key, ROUND_KEY}, SUM_RECORD)
        check_count(1, record[ROUND_KEY], round=session.round, least=1)
        data = record[key]
        if key == BAD_KEY:
            named = [name for name in data if name in contributors] if isinstance(data, list) else []
            if not named:
                raise Rejected(f"{BAD_KEY} names no contributor")
            return sorted(named)
        if not isinstance(data, bytes):
            raise Rejected(f"{SUM_KEY} is not bytes")
        return session.numbers.field.from_bytes(data, session.columns)

    told = guarded(read)
    if isinstance(told, list):
        raise BadShares(told)
    return told
