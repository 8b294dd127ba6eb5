"""Reading replies that may be hostile: allow-lists of records and keys, counts, metrics."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord

from fedperfit.cloud.clients.metric_rules import Metric, MetricRule
from fedperfit.protocol.messages.keys import COUNTS_RECORD, ITEMS_KEY, METRICS_RECORD, ROUND_KEY
from fedperfit.protocol.system.errors import InputError, line_of

_LONGEST_REASON = 240
_T = TypeVar("_T")


class Rejected(Exception):
    """A reply is dropped; the text is one printable line, whatever the client wrote into it."""

    def __init__(self, reason: str) -> None:
        super().__init__(line_of(reason, _LONGEST_REASON))


def open_records(
    reply: Message, *, required: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """Return the records of a reply by name.

    Args:
        reply: A client's reply.
        required: Types of the records that must be there, by name.
        optional: Types of the records that may be there, by name.

    Raises:
        Rejected: For an error reply, and for an unknown, missing or mistyped record.
    """
    if reply.has_error():
        raise Rejected(f"error reply (code {reply.error.code}): {_gist(reply.error.reason or '')}")
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
    """Return what `read` returns; every exception it raises becomes Rejected."""
    try:
        return read()
    except Rejected:
        raise
    except InputError as error:
        raise Rejected(str(error)) from None
    except Exception as error:
        raise Rejected(f"unreadable ({type(error).__name__}: {error})") from error


def exact_keys(record: ArrayRecord | MetricRecord | ConfigRecord, expected: set[str], name: str) -> None:
    """Check that a record holds the expected keys and no other.

    Args:
        record: Record of a reply.
        expected: Its keys.
        name: Name of the record, for the reason.

    Raises:
        Rejected: Naming the key that is unknown or missing.
    """
    for key in record:
        if key not in expected:
            raise Rejected(f"{name} holds an unknown key {key!r}")
    for key in sorted(expected):
        if key not in record:
            raise Rejected(f"{name} lacks the key {key!r}")


def read_counts(record: MetricRecord, *, round: int, least: int) -> int:
    """Return the number of items in a counts record; a bool or a float is no count.

    Args:
        record: Counts record of a reply.
        round: Number of the round that it must repeat.
        least: Smallest number of items accepted.

    Raises:
        Rejected: If the record is malformed or out of these bounds.
    """
    exact_keys(record, {ITEMS_KEY, ROUND_KEY}, COUNTS_RECORD)
    return check_count(record[ITEMS_KEY], record[ROUND_KEY], round=round, least=least)


def check_count(items: object, echo: object, *, round: int, least: int) -> int:
    """Return a number of items that a client sent; a bool or a float is no count.

    Args:
        items: The number as it was sent.
        echo: Number of the round as it was sent.
        round: Number of the round that it must repeat.
        least: Smallest number of items accepted.

    Raises:
        Rejected: If either is malformed or out of these bounds.
    """
    if type(items) is not int:
        raise Rejected(f"{ITEMS_KEY}={items!r} is not a whole number")
    if items < least:
        raise Rejected(f"{ITEMS_KEY}={items}: must be at least {least}")
    if type(echo) is not int or echo != round:
        raise Rejected(f"{ROUND_KEY}={echo!r}, expected {round}")
    return items


def read_metrics(
    record: MetricRecord | None, rules: Mapping[str, MetricRule], items: int
) -> dict[str, Metric]:
    """Return the sums in a metrics record.

    Args:
        record: Metrics record of a reply; None if the owner shares no metrics.
        rules: Rules for the metrics, all of which must be there.
        items: Number of items behind the sums.

    Returns:
        Sums by metric; empty if the owner shares none.

    Raises:
        Rejected: If a metric is missing, unknown or breaks its rule.
    """
    if record is None:
        return {}
    exact_keys(record, set(rules), METRICS_RECORD)
    values = {}
    for key, rule in rules.items():
        try:
            values[key] = rule.check(record[key], items)
        except ValueError as error:
            raise Rejected(f"the metric {key} {error}") from None
    return values


def _gist(reason: str) -> str:
    """Return what the client raised, out of the traceback that Flower wraps it in: `<'... Message: ...'>`."""
    return reason.rsplit("Message: ", 1)[-1].rstrip("'> \n")
