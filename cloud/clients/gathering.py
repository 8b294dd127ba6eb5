"""Asking clients for what they tell as statistics: a bad reply costs its own client only."""

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TypeVar

from flwr.app import ConfigRecord, Message, RecordDict

from fedperfit.cloud.clients.exchange import Exchange, logger
from fedperfit.cloud.clients.replies import Rejected, exact_keys, guarded
from fedperfit.protocol.messages.keys import STATISTICS_RECORD

_T = TypeVar("_T")


def gather(
    exchange: Exchange,
    contents: Mapping[str, RecordDict],
    message_type: str,
    admit: Callable[[str, Message], _T],
    *,
    phase: str,
    round: int,
    deadline: float,
) -> dict[str, _T]:
    """What is admitted, by client name, sorted; the others are logged.

    admit: what a client's reply tells; whatever it raises drops that client.
    """
    found: dict[str, _T] = {}
    dropped: dict[str, str] = {}
    replies = exchange.ask(contents, message_type, phase=phase, round=round, deadline=deadline)
    with closing(replies):
        for client, reply in replies:
            try:
                found[client] = _admitted(admit, client, reply)
            except Rejected as reason:
                dropped[client] = str(reason)
    for client in sorted(set(contents) - set(found)):
        why = dropped.get(client, f"no reply within {deadline:g} s")
        logger.warning("%s, round %d: dropped %s: %s", phase, round, client, why)
    return dict(sorted(found.items()))


def _admitted(admit: Callable[[str, Message], _T], client: str, reply: Message) -> _T:
    return guarded(lambda: admit(client, reply))


def statistics(record: ConfigRecord, key: str) -> bytes:
    """The one value of a statistics record; raises Rejected for anything else."""
    exact_keys(record, {key}, STATISTICS_RECORD)
    data = record[key]
    if not isinstance(data, bytes):
        raise Rejected(f"{STATISTICS_RECORD}: {key} is no bytes")
    return data
