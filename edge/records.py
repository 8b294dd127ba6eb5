"""The records of an edge's replies: what may be in a message to the cloud, and nothing else."""

import logging
from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedperfit.protocol.messages.keys import (
    COUNTS_RECORD,
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
    VIEW_DIGEST_KEY,
    VIEW_KEY,
)
from fedperfit.protocol.system.errors import InputError

logger = logging.getLogger("fedperfit.edge")
_FAILED = 1000
"""Error code of a reply by an agent that could not do what was asked."""


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
    """Who a client is and what it could do."""
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
    """Counts, the update or the statistics if there are any, and metric sums where the owner shares them."""
    round_number = message.content.config_records[SETTINGS_RECORD][ROUND_KEY]
    if not isinstance(round_number, int):
        raise InputError(f"{ROUND_KEY} is not a number")
    records = RecordDict({COUNTS_RECORD: MetricRecord({ITEMS_KEY: items, ROUND_KEY: round_number})})
    if metrics is not None:
        records[METRICS_RECORD] = MetricRecord({**metrics})
    if update is not None:
        array = Array(dtype="uint8", shape=(len(update),), stype=SHIFT_STYPE, data=update)
        records[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: array})
    if statistics is not None:
        records[STATISTICS_RECORD] = ConfigRecord({**statistics})
    return Message(records, reply_to=message)


def probe_request(message: Message) -> dict[str, Any]:
    """What a probe message asks: `probes`, `digest` and `view` as in `edge/chameleon/contribution.py`."""
    statistics = message.content.config_records[STATISTICS_RECORD]
    return {
        "probes": statistics[PROBES_KEY],
        "digest": message.content.config_records[SETTINGS_RECORD][VIEW_DIGEST_KEY],
        "view": statistics.get(VIEW_KEY, b""),
    }


def refusal(message: Message, kind: str) -> Message:
    """An error reply; kind: the type of what went wrong, whose text could quote a person's history."""
    logger.warning("an agent could not answer: %s", kind)
    return Message(Error(_FAILED, f"the agent could not answer ({kind})"), reply_to=message)
