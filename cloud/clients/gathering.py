"""Asking all clients one question and collecting the admitted answers."""

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
    """Ask clients and read their replies; a bad reply costs its own client only.

    Args:
        exchange: Exchange with the connected clients.
        contents: Records to send, by client name.
        message_type: Flower's type of the messages.
        admit: Reads the reply of a client; whatever it raises drops that client.
        phase: Phase, for the ledger and the log.
        round: Number of the round, for the ledger and the log; 0 outside rounds.
        deadline: Longest wait for replies, in seconds.

    Returns:
        What `admit` returned by client name, sorted; the clients left out are logged.
    """
    admitted: dict[str, _T] = {}
    dropped: dict[str, str] = {}
    replies = exchange.ask(contents, message_type, phase=phase, round=round, deadline=deadline)
    with closing(replies):
        for client, reply in replies:
            try:
                admitted[client] = _admitted(admit, client, reply)
            except Rejected as reason:
                dropped[client] = str(reason)
    where = f"{phase}, round {round}" if round else phase
    for client in sorted(set(contents) - set(admitted)):
        why = dropped.get(client, f"no reply within {deadline:g} s")
        logger.warning("%s: dropped %s: %s", where, client, why)
    return dict(sorted(admitted.items()))


def _admitted(admit: Callable[[str, Message], _T], client: str, reply: Message) -> _T:
    return guarded(lambda: admit(client, reply))


def statistics(record: ConfigRecord, key: str) -> bytes:
    """Return the one value of a statistics record.

    Args:
        record: Statistics record of a reply.
        key: Name of the value.

    Raises:
        Rejected: If the record holds anything else.
    """
    exact_keys(record, {key}, STATISTICS_RECORD)
    data = record[key]
    if not isinstance(data, bytes):
        raise Rejected(f"{STATISTICS_RECORD}: {key} is not bytes")
    return data
