"""The pulls of clients that keep their pairs, from which layers, ranks and a start are chosen.

What a client tells is a mean over its pairs; the choice is that of the same pulls in one place
(`protocol.shift.selection`).
"""

from collections.abc import Sequence

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fedperfit.cloud.clients.exchange import Exchange
from fedperfit.cloud.clients.gathering import gather, statistics
from fedperfit.cloud.clients.replies import Rejected, open_records, read_counts
from fedperfit.protocol.messages.keys import (
    COUNTS_RECORD,
    LAYER_GRADIENT_KEY,
    LAYER_GRADIENT_TYPE,
    ROUND_KEY,
    SETTINGS_RECORD,
    STATISTICS_RECORD,
)
from fedperfit.protocol.messages.settings import FEWEST_PAIRS, LayerGradientSettings
from fedperfit.protocol.messages.statistics import layer_gradient_from_bytes
from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.shift.selection import LayerGradient

PHASE = "pulls"
FEWEST_CLIENTS = 2
"""Whose pulls make a choice."""
_GREATEST_LENGTH = 1e6
_GREATEST_GRADIENT = 1e4
"""Far above what models have, so that no client can make everyone's numbers overflow."""


def gather_layer_gradients(
    exchange: Exchange,
    settings: LayerGradientSettings,
    card: BaseModelCard,
    clients: Sequence[str],
    *,
    max_items: int,
    deadline: float,
) -> dict[str, LayerGradient]:
    """Of the clients that are admitted, sorted; none weighs more than `max_items` pairs."""

    def admit(client: str, reply: Message) -> LayerGradient:
        records = open_records(reply, required={COUNTS_RECORD: MetricRecord, STATISTICS_RECORD: ConfigRecord})
        pairs = read_counts(records[COUNTS_RECORD], round=0, least=FEWEST_PAIRS)
        if settings.max_items and pairs > settings.max_items:
            raise Rejected(f"{pairs} pairs of {settings.max_items} items")
        data = statistics(records[STATISTICS_RECORD], LAYER_GRADIENT_KEY)
        told = layer_gradient_from_bytes(data, min(pairs, max_items), card.layers, card.hidden_size)
        if float(told.gradient.norm(dim=1).max()) > _GREATEST_GRADIENT:
            raise Rejected(f"a gradient longer than {_GREATEST_GRADIENT:g}")
        if not bool(((told.length >= 0) & (told.length <= _GREATEST_LENGTH)).all()):
            raise Rejected(f"lengths outside 0..{_GREATEST_LENGTH:g}")
        return told

    config = {**settings.to_config(), ROUND_KEY: 0}
    contents = {
        client: RecordDict({SETTINGS_RECORD: ConfigRecord({**config})}) for client in sorted(set(clients))
    }
    return gather(exchange, contents, LAYER_GRADIENT_TYPE, admit, phase=PHASE, round=0, deadline=deadline)
