"""The admission gate: decides whether a client's reply may enter a round; a refusal is one line.

Stock Flower averages a NaN and ends the run on an unknown record. Here nothing a client sends can raise
anything but `Rejected`, and only an admitted `Update` reaches the aggregation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from flwr.app import ArrayRecord, Message, MetricRecord

from fedperfit.cloud.clients.metric_rules import TRAINING_METRICS, Metric, MetricRule
from fedperfit.cloud.clients.replies import (
    Rejected,
    exact_keys,
    guarded,
    open_records,
    read_counts,
    read_metrics,
)
from fedperfit.protocol.messages.keys import (
    COUNTS_RECORD,
    METRICS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
    SHIFT_STYPE,
)
from fedperfit.protocol.shift.packing import ShiftHeader, pack, read_header, unpack
from fedperfit.protocol.shift.shift import Shift

ORTHONORMAL = 1e-2
"""Largest entry of R R^T - I admitted: the rounding of bf16 stays below it."""


@dataclass(frozen=True)
class Update:
    """An admitted reply to contribute."""

    client: str
    """Name of the client."""
    shift: Shift
    """Collective shift as the client trained it."""
    items: int
    """Weight of the client: its training pairs, capped."""
    metrics: dict[str, Metric]
    """Sums over all its pairs; empty if the owner shares none."""
    trained: int
    """Training pairs as the client counts them, for the mean of a metric, not for the weight."""


@dataclass(frozen=True)
class Counts:
    """An admitted reply to personalize or evaluate."""

    client: str
    """Name of the client."""
    items: int
    """Training pairs, or answered questions, behind the reply."""
    metrics: dict[str, Metric]
    """Sums over the items; empty if the owner shares none."""


class AdmissionGate:
    """Admits at most one update per client to one round."""

    def __init__(
        self,
        *,
        header: ShiftHeader,
        round: int,
        max_norm: float,
        max_items: int,
        metrics: Mapping[str, MetricRule] = TRAINING_METRICS,
    ) -> None:
        """Set what an update of this round must look like.

        Args:
            header: Header of the broadcast shift; an update must carry the same, byte for byte.
            round: Number of the round, which replies repeat.
            max_norm: Largest Frobenius norm of W - R, and of b.
            max_items: Largest weight of a client, in items.
            metrics: Rules for the metrics that clients may share.
        """
        self.header, self.round = header, round
        self.max_norm, self.max_items, self.metrics = max_norm, max_items, metrics
        self._seen: set[str] = set()
        shape = header.shape
        slab = torch.zeros(len(shape.layers), shape.rank, shape.hidden_size)
        blank = pack(Shift(shape, R=slab, W=slab, b=slab[:, :, 0]), header)
        self._prefix = blank[: read_header(blank)[1]]

    def admit(self, client: str, reply: Message) -> Update:
        """Return the update that a reply holds.

        Args:
            client: Name of the client.
            reply: Its reply to contribute.

        Raises:
            Rejected: If the reply cannot be trusted; no other exception leaves here.
        """
        if client in self._seen:
            raise Rejected("a second reply in the same round")
        self._seen.add(client)
        return guarded(lambda: self._admit(client, reply))

    def _admit(self, client: str, reply: Message) -> Update:
        records = open_records(
            reply,
            required={SHIFT_RECORD: ArrayRecord, COUNTS_RECORD: MetricRecord},
            optional={METRICS_RECORD: MetricRecord},
        )
        items = read_counts(records[COUNTS_RECORD], round=self.round, least=1)
        metrics = read_metrics(records.get(METRICS_RECORD), self.metrics, items)
        shift = self._shift(records[SHIFT_RECORD])
        return Update(client, shift, min(items, self.max_items), metrics, items)

    def _shift(self, record: ArrayRecord) -> Shift:
        exact_keys(record, {SHIFT_KEY}, SHIFT_RECORD)
        array = record[SHIFT_KEY]
        for name, value, expected in (
            ("stype", array.stype, SHIFT_STYPE),
            ("dtype", array.dtype, "uint8"),
            ("shape", tuple(array.shape), (len(array.data),)),
        ):
            if value != expected:
                raise Rejected(f"the array's {name} is {value!r}, expected {expected!r}")
        header, _ = read_header(array.data)
        _same_header(header, self.header)
        if not array.data.startswith(self._prefix):
            raise Rejected("the header's bytes differ from those broadcast")
        shift, _ = unpack(array.data)  # checks the length
        self._check_values(shift)
        return shift

    @torch.no_grad()
    def _check_values(self, shift: Shift) -> None:
        for name, tensor in (("R", shift.R), ("W", shift.W), ("b", shift.b)):
            if tensor.isnan().any():
                raise Rejected(f"{name} contains NaN")
            if tensor.isinf().any():
                raise Rejected(f"{name} contains Inf")
        R, W, b = shift.R.double(), shift.W.double(), shift.b.double()
        error = float((R @ R.mT - torch.eye(R.shape[1], dtype=R.dtype)).abs().max())
        if not error <= ORTHONORMAL:
            raise Rejected(f"the rows of R are not orthonormal: off by {error:.3g}")
        for name, part in (("W - R", W - R), ("b", b)):
            norm = float(part.norm())
            if not norm <= self.max_norm:
                raise Rejected(f"the norm of {name} is {norm:.3g}, above {self.max_norm:g}")


def admit_counts(client: str, reply: Message, metrics: Mapping[str, MetricRule], *, round: int = 0) -> Counts:
    """Read a reply without tensors, to personalize or evaluate.

    Args:
        client: Name of the client.
        reply: Its reply.
        metrics: Rules for the metrics that it may share.
        round: Number that the reply must repeat.

    Raises:
        Rejected: If the reply cannot be trusted; no other exception leaves here.
    """

    def read() -> Counts:
        records = open_records(
            reply, required={COUNTS_RECORD: MetricRecord}, optional={METRICS_RECORD: MetricRecord}
        )
        items = read_counts(records[COUNTS_RECORD], round=round, least=0)
        return Counts(client, items, read_metrics(records.get(METRICS_RECORD), metrics, items))

    return guarded(read)


def _same_header(header: ShiftHeader, expected: ShiftHeader) -> None:
    for name in ("fingerprint", "task", "round", "dtype"):
        if getattr(header, name) != getattr(expected, name):
            raise Rejected(
                f"the header's {name} is {getattr(header, name)!r}, expected {getattr(expected, name)!r}"
            )
    for name in ("layers", "rank", "hidden_size", "positions"):
        if getattr(header.shape, name) != getattr(expected.shape, name):
            raise Rejected(
                f"the header's {name} is {getattr(header.shape, name)}, "
                f"expected {getattr(expected.shape, name)}"
            )
