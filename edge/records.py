"""Writes the records of an edge's replies: what may be in a message to the cloud, and nothing else."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedperfit.protocol.messages.keys import (
    BAD_KEY,
    BASIS_KEY,
    BASIS_RECORD,
    CLIENTS_KEY,
    COUNTS_RECORD,
    ENVELOPES_KEY,
    ENVELOPES_RECORD,
    ITEMS_KEY,
    METRICS_RECORD,
    PROBES_KEY,
    ROUND_KEY,
    SETTINGS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
    SHIFT_STYPE,
    STATISTICS_RECORD,
    STATUS_RECORD,
    SUM_KEY,
    SUM_RECORD,
    UPDATE_KEY,
    UPDATE_RECORD,
    VIEW_DIGEST_KEY,
    VIEW_KEY,
)
from fedperfit.protocol.system.errors import InputError

logger = logging.getLogger("fedperfit.edge")
_FAILED = 1000
"""Error code of a reply from an agent that could not act."""


def status_reply(
    message: Message,
    *,
    client: str,
    fingerprint: str,
    task: str,
    history: int,
    questions: int,
    shares_metrics: bool,
) -> Message:
    """Reply with the identity of a client and what it could do.

    Args:
        message: request that is answered.
        client: name of the client.
        fingerprint: fingerprint of its base model.
        task: id of its task.
        history: number of training pairs.
        questions: number of held-out questions.
        shares_metrics: whether its owner shares metric sums.
    """
    record = ConfigRecord(
        {
            "client": client,
            "fingerprint": fingerprint,
            "task": task,
            "history": history,
            "questions": questions,
            "shares-metrics": shares_metrics,
        }
    )
    return Message(RecordDict({STATUS_RECORD: record}), reply_to=message)


def reply(
    message: Message,
    items: int,
    metrics: Mapping[str, float | list[int]] | None = None,
    update: bytes | None = None,
    statistics: Mapping[str, bytes] | None = None,
) -> Message:
    """Reply with the result of an action.

    Args:
        message: request that is answered.
        items: number of training pairs used, or of questions answered.
        metrics: metric sums, where the owner shares them and there are any.
        update: packed collective shift of a round.
        statistics: encoded statistics by key.

    Raises:
        InputError: the request's round is not a number.
    """
    records = RecordDict({COUNTS_RECORD: MetricRecord({ITEMS_KEY: items, ROUND_KEY: round_of(message)})})
    if metrics:
        records[METRICS_RECORD] = MetricRecord({**metrics})
    if update is not None:
        array = Array(dtype="uint8", shape=(len(update),), stype=SHIFT_STYPE, data=update)
        records[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: array})
    if statistics is not None:
        records[STATISTICS_RECORD] = ConfigRecord({**statistics})
    return Message(records, reply_to=message)


def coordinate_reply(
    message: Message, items: int, metrics: Mapping[str, float | list[int]] | None, update: bytes
) -> Message:
    """Reply with an update of coordinates, all of it in one record.

    Args:
        message: request that is answered.
        items: number of training pairs used; 0 where the client lacks the basis.
        metrics: metric sums, where the owner shares them.
        update: packed update; empty where the client lacks the basis.

    Raises:
        InputError: the request's round is not a number.
    """
    values: dict[str, Any] = {ITEMS_KEY: items, ROUND_KEY: round_of(message)}
    if update:
        values |= {UPDATE_KEY: update} | dict(metrics or {})
    return Message(RecordDict({UPDATE_RECORD: ConfigRecord(values)}), reply_to=message)


def sum_reply(message: Message, total: bytes, bad: Sequence[str]) -> Message:
    """Reply as a member of the committee of secure sums.

    Args:
        message: request that is answered.
        total: sum of the shares.
        bad: names of the clients whose shares cannot be opened; then there is no sum.

    Raises:
        InputError: the request's round is not a number.
    """
    told: dict[str, Any] = {BAD_KEY: list(bad)} if bad else {SUM_KEY: total}
    return Message(
        RecordDict({SUM_RECORD: ConfigRecord(told | {ROUND_KEY: round_of(message)})}), reply_to=message
    )


def envelopes_of(message: Message) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """Read whose shares a member is sent, and the shares; raises InputError for anything else."""
    record = message.content.config_records[ENVELOPES_RECORD]
    clients, envelopes = record[CLIENTS_KEY], record[ENVELOPES_KEY]
    if not isinstance(clients, list) or not isinstance(envelopes, list):
        raise InputError(f"{ENVELOPES_RECORD} holds no lists")
    names = tuple(name for name in clients if isinstance(name, str))
    sealed = tuple(envelope for envelope in envelopes if isinstance(envelope, bytes))
    if (len(names), len(sealed)) != (len(clients), len(envelopes)):
        raise InputError(f"{ENVELOPES_RECORD} holds no names and bytes")
    return names, sealed


def round_of(message: Message) -> int:
    """Return the round of a request; raises InputError where it is no number."""
    number = message.content.config_records[SETTINGS_RECORD][ROUND_KEY]
    if not isinstance(number, int):
        raise InputError(f"{ROUND_KEY} is not a number")
    return number


def sent_basis(message: Message) -> bytes:
    """Read the basis of a request in one; empty where the cloud did not send it."""
    data = message.content.config_records[BASIS_RECORD][BASIS_KEY] if BASIS_RECORD in message.content else b""
    if not isinstance(data, bytes):
        raise InputError(f"{BASIS_KEY} is not bytes")
    return data


def probe_request(message: Message) -> dict[str, Any]:
    """Read a probe message: `probes`, `digest` and `view` as in `edge/chameleon/contribution.py`."""
    statistics = message.content.config_records[STATISTICS_RECORD]
    return {
        "probes": statistics[PROBES_KEY],
        "digest": message.content.config_records[SETTINGS_RECORD][VIEW_DIGEST_KEY],
        "view": statistics.get(VIEW_KEY, b""),
    }


def refusal(message: Message, kind: str) -> Message:
    """Reply with an error, told by its type alone, for its text could quote a person's history.

    Args:
        message: request that is answered.
        kind: name of the error's type.
    """
    logger.warning("an agent could not answer: %s", kind)
    return Message(Error(_FAILED, f"the agent could not answer ({kind})"), reply_to=message)
