"""The admission gate of rounds in a basis: one record a reply, of which nothing is taken on trust."""

from dataclasses import dataclass

import torch
from flwr.app import ConfigRecord, Message

from fedperfit.cloud.clients.metric_rules import TRAINING_METRICS, Metric
from fedperfit.cloud.clients.replies import Rejected, check_count, guarded, open_records
from fedperfit.protocol.messages.keys import ITEMS_KEY, ROUND_KEY, UPDATE_KEY, UPDATE_RECORD
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.coordinate_packing import Agreement, unpack_update

_LOSS_KEY = "loss"


@dataclass(frozen=True, eq=False)
class CoordinateUpdate:
    """An admitted reply to contribute, in a basis."""

    client: str
    """Name of the client."""
    change: torch.Tensor
    """What the client's training changed in the coordinates: (n,) fp32."""
    items: int
    """Weight of the client: its training pairs, capped."""
    metrics: dict[str, Metric]
    """Sums over all its pairs; empty if the owner shares none."""
    trained: int
    """Training pairs as the client counts them, for the mean of a metric, not for the weight."""


class BasisMissing(Exception):
    """The client does not hold the basis, and must be sent it."""


def first_update(client: str, reply: Message, seen: set[str]) -> ConfigRecord:
    """Return the record of a client's update, the only one that it may send in a round.

    Args:
        client: Name of the client.
        reply: Its reply to contribute.
        seen: Clients whose updates have come, to which this one is added.

    Raises:
        Rejected: If it is a second one, or not a record of an update.
        BasisMissing: If the client asks for the basis, after which it may still send its update.
    """
    if client in seen:
        raise Rejected("a second reply in the same round")
    records = guarded(lambda: open_records(reply, required={UPDATE_RECORD: ConfigRecord}))
    record: ConfigRecord = records[UPDATE_RECORD]
    if set(record) == {ITEMS_KEY, ROUND_KEY} and record[ITEMS_KEY] == 0:
        raise BasisMissing
    seen.add(client)
    return record


class CoordinateGate:
    """Admits at most one update per client to one round."""

    def __init__(
        self, broadcast: Coordinates, agreement: Agreement, *, round: int, max_norm: float, max_items: int
    ) -> None:
        """Set what an update of this round must look like.

        Args:
            broadcast: Coordinates that the clients started from.
            agreement: Basis, codec and round that the update's tag must tell.
            round: Number of the round, which replies repeat.
            max_norm: Largest Frobenius norm of W - R, and of b, that an update may lead to.
            max_items: Largest weight of a client, in items.
        """
        self.broadcast, self.agreement, self.round = broadcast, agreement, round
        self.max_norm, self.max_items = max_norm, max_items
        triangle = torch.linalg.qr(broadcast.basis.P.double().mT, mode="r").R
        self._factor = triangle.mT  # |A P| = |A factor|, without the base model's width
        self._seen: set[str] = set()

    def admit(self, client: str, reply: Message) -> CoordinateUpdate:
        """Return the update that a reply holds.

        Args:
            client: Name of the client.
            reply: Its reply to contribute.

        Raises:
            Rejected: If the reply cannot be trusted.
            BasisMissing: If the client asks for the basis; no other exception leaves here.
        """
        record = first_update(client, reply, self._seen)
        return guarded(lambda: self._admit(client, dict(record)))

    def _admit(self, client: str, values: dict[str, object]) -> CoordinateUpdate:
        for key in sorted(values):
            if key not in (UPDATE_KEY, ITEMS_KEY, ROUND_KEY, _LOSS_KEY):
                raise Rejected(f"{UPDATE_RECORD} holds an unknown key {key!r}")
        for key in (UPDATE_KEY, ITEMS_KEY, ROUND_KEY):
            if key not in values:
                raise Rejected(f"{UPDATE_RECORD} lacks the key {key!r}")
        items = check_count(values[ITEMS_KEY], values[ROUND_KEY], round=self.round, least=1)
        metrics: dict[str, Metric] = {}
        if _LOSS_KEY in values:
            try:
                metrics[_LOSS_KEY] = TRAINING_METRICS[_LOSS_KEY].check(values[_LOSS_KEY], items)
            except ValueError as error:
                raise Rejected(f"the metric {_LOSS_KEY} {error}") from None
        data = values[UPDATE_KEY]
        if not isinstance(data, bytes):
            raise Rejected(f"{UPDATE_KEY} is not bytes")
        change = unpack_update(data, self.agreement, self.broadcast.basis.numbers)
        self._check_norms(change)
        return CoordinateUpdate(client, change, min(items, self.max_items), metrics, items)

    def _check_norms(self, change: torch.Tensor) -> None:
        after = Coordinates.of(self.broadcast.basis, self.broadcast.numbers.double() + change.double())
        for name, part in (("W - R", after.A @ self._factor), ("b", after.b)):
            norm = float(part.norm())
            if not norm <= self.max_norm:
                raise Rejected(f"the norm of {name} is {norm:.3g}, above {self.max_norm:g}")
