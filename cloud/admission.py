"""The admission gate: what a client's reply may hold; anything else is refused with one line.

Stock Flower averages a NaN and ends the run on an unknown record. Here nothing a client sends can raise
anything but `Rejected`, and only an admitted `Update` reaches the aggregation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord

from cloud.metric_rules import TRAINING_METRICS, Metric, MetricRule
from protocol.errors import InputError
from protocol.messages import (
    COUNTS_RECORD,
    ITEMS_KEY,
    METRICS_RECORD,
    ROUND_KEY,
    SHIFT_KEY,
    SHIFT_RECORD,
    SHIFT_STYPE,
)
from protocol.packing import ShiftHeader, pack, read_header, unpack
from protocol.shift import Shift

ORTHONORMAL = 1e-2
"""Largest entry of R R^T - I admitted: what rounding to bf16 may leave."""
_LONGEST_REASON = 240
_T = TypeVar("_T")


class Rejected(Exception):
    """A reply that is dropped; the text is one printable line, whatever the client wrote into it."""

    def __init__(self, reason: str) -> None:
        line = " ".join(reason[: 4 * _LONGEST_REASON].split())
        line = "".join(letter if letter.isprintable() else "?" for letter in line)
        super().__init__(line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…")


@dataclass(frozen=True)
class Update:
    """An admitted reply to contribute."""

    client: str
    shift: Shift
    items: int
    """The client's weight: its training pairs, capped."""
    metrics: dict[str, Metric]
    """Sums over all its pairs; empty where the owner shares none."""
    trained: int
    """Training pairs as the client counts them, for the mean of a metric, not for the weight."""


@dataclass(frozen=True)
class Counts:
    """An admitted reply to personalize or evaluate."""

    client: str
    items: int
    """Training pairs, or answered questions, behind the reply."""
    metrics: dict[str, Metric]
    """Sums over the items; empty where the owner shares none."""


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
        """header: of the shift that was broadcast; an update must carry the same, byte for byte."""
        self.header, self.round = header, round
        self.max_norm, self.max_items, self.metrics = max_norm, max_items, metrics
        self._seen: set[str] = set()
        shape = header.shape
        slab = torch.zeros(len(shape.layers), shape.rank, shape.hidden_size)
        blank = pack(Shift(shape, R=slab, W=slab, b=slab[:, :, 0]), header)
        self._prefix = blank[: read_header(blank)[1]]
        self._length = len(blank)

    def admit(self, client: str, reply: Message) -> Update:
        """The update in `reply`; raises Rejected, and nothing else, when there is none to trust."""
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
        items = _counts(records[COUNTS_RECORD], round=self.round, least=1)
        metrics = _metrics(records.get(METRICS_RECORD), self.metrics, items)
        shift = self._shift(records[SHIFT_RECORD])
        return Update(client, shift, min(items, self.max_items), metrics, items)

    def _shift(self, record: ArrayRecord) -> Shift:
        _exact_keys(record, {SHIFT_KEY}, SHIFT_RECORD)
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
            raise Rejected("the header is not written as it was broadcast")
        if len(array.data) != self._length:
            raise Rejected(f"packed shift has {len(array.data)} bytes, expected {self._length}")
        shift, _ = unpack(array.data)
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
    """A reply without tensors: personalize, evaluate. Raises Rejected, and nothing else."""

    def read() -> Counts:
        records = open_records(
            reply, required={COUNTS_RECORD: MetricRecord}, optional={METRICS_RECORD: MetricRecord}
        )
        items = _counts(records[COUNTS_RECORD], round=round, least=0)
        return Counts(client, items, _metrics(records.get(METRICS_RECORD), metrics, items))

    return guarded(read)


def open_records(
    reply: Message, *, required: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """The records of `reply` by name; raises Rejected for an error, an unknown or a missing record."""
    if reply.has_error():
        raise Rejected(f"error reply (code {reply.error.code}): {reply.error.reason}")
    if not reply.has_content():
        raise Rejected("the reply is empty")
    allowed = {**required, **(optional or {})}
    records = dict(reply.content.items())
    for name, record in records.items():
        if name not in allowed:
            raise Rejected(f"unknown {type(record).__name__} {name!r}")
        if type(record) is not allowed[name]:
            raise Rejected(f"{name} is a {type(record).__name__}, expected {allowed[name].__name__}")
    for name in required:
        if name not in records:
            raise Rejected(f"the record {name} is missing")
    return records


def guarded(read: Callable[[], _T]) -> _T:
    try:
        return read()
    except Rejected:
        raise
    except InputError as error:
        raise Rejected(str(error)) from None
    except Exception as error:
        raise Rejected(f"unreadable ({type(error).__name__}: {error})") from error


def _exact_keys(record: ArrayRecord | MetricRecord | ConfigRecord, expected: set[str], name: str) -> None:
    for key in record:
        if key not in expected:
            raise Rejected(f"{name} holds an unknown key {key!r}")
    for key in sorted(expected):
        if key not in record:
            raise Rejected(f"{name} lacks the key {key!r}")


def _counts(record: MetricRecord, *, round: int, least: int) -> int:
    """The items of a counts record; a bool or a float is no count."""
    _exact_keys(record, {ITEMS_KEY, ROUND_KEY}, COUNTS_RECORD)
    items, echo = record[ITEMS_KEY], record[ROUND_KEY]
    if type(items) is not int:
        raise Rejected(f"{ITEMS_KEY}={items!r} is not a whole number")
    if items < least:
        raise Rejected(f"{ITEMS_KEY}={items}: must be at least {least}")
    if type(echo) is not int or echo != round:
        raise Rejected(f"{ROUND_KEY}={echo!r}, expected {round}")
    return items


def _metrics(record: MetricRecord | None, rules: Mapping[str, MetricRule], items: int) -> dict[str, Metric]:
    if record is None:
        return {}
    _exact_keys(record, set(rules), METRICS_RECORD)
    values = {}
    for key, rule in rules.items():
        try:
            values[key] = rule.check(record[key], items)
        except ValueError as error:
            raise Rejected(f"the metric {key} {error}") from None
    return values


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
