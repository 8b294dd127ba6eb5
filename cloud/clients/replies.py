"""Reading a reply that may be hostile: the allow-list of records and keys, the counts, the metrics."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord

from fedperfit.cloud.clients.metric_rules import Metric, MetricRule
from fedperfit.protocol.messages.keys import COUNTS_RECORD, ITEMS_KEY, METRICS_RECORD, ROUND_KEY
from fedperfit.protocol.system.errors import InputError, printable

_LONGEST_REASON = 240
_T = TypeVar("_T")


class Rejected(Exception):
    """A reply that is dropped; the text is one printable line, whatever the client wrote into it."""

    def __init__(self, reason: str) -> None:
        line = printable(" ".join(reason[: 4 * _LONGEST_REASON].split()))
        super().__init__(line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…")


def open_records(
    reply: Message, *, required: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """The records of `reply` by name; raises Rejected for an error, an unknown or a missing record."""
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
    """What `read` returns; whatever it raises becomes Rejected."""
    try:
        return read()
    except Rejected:
        raise
    except InputError as error:
        raise Rejected(str(error)) from None
    except Exception as error:
        raise Rejected(f"unreadable ({type(error).__name__}: {error})") from error


def exact_keys(record: ArrayRecord | MetricRecord | ConfigRecord, expected: set[str], name: str) -> None:
    """Raise Rejected unless the record called `name` holds the expected keys and no other."""
    for key in record:
        if key not in expected:
            raise Rejected(f"{name} holds an unknown key {key!r}")
    for key in sorted(expected):
        if key not in record:
            raise Rejected(f"{name} lacks the key {key!r}")


def read_counts(record: MetricRecord, *, round: int, least: int) -> int:
    """The items of a counts record, at least `least`; a bool or a float is no count."""
    exact_keys(record, {ITEMS_KEY, ROUND_KEY}, COUNTS_RECORD)
    items, echo = record[ITEMS_KEY], record[ROUND_KEY]
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
    """The sums of a metrics record, all of `rules`; none when the owner shares none."""
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
    """What the client raised: Flower wraps it in tracebacks, `<'... Message: ...'>`."""
    return reason.rsplit("Message: ", 1)[-1].rstrip("'> \n")
