"""The layer gradients of clients that keep their pairs; layers, ranks and a start are chosen from them.

A client sends a mean over its pairs; the choice equals that from the same layer gradients in one place
(`protocol.shift.selection`).
"""

from collections.abc import Callable, Mapping, Sequence

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
from fedperfit.protocol.system.errors import TooFewClients, count_of

PHASE = "pulls"
"""Name of the phase in ledgers and events."""
FEWEST_CLIENTS = 2
"""Fewest clients whose layer gradients make a choice."""
_GREATEST_LENGTH = 1e6
"""Largest mean length of hidden states, far above what models have."""
_GREATEST_GRADIENT = 1e4
"""Largest length of a layer gradient, far above what models have, so that no client can make everyone's
numbers overflow."""


class KnownLayerGradients:
    """Layer gradients of clients by name; nobody is asked twice."""

    def __init__(self) -> None:
        """Begin with nobody asked."""
        self._known: dict[str, LayerGradient | None] = {}

    def of(
        self, clients: Sequence[str], ask: Callable[[Sequence[str]], Mapping[str, LayerGradient]]
    ) -> list[LayerGradient]:
        """Return the layer gradients of clients, sorted by name.

        Args:
            clients: Names of the clients.
            ask: Gathers the layer gradients of clients that were not asked before.

        Raises:
            TooFewClients: If too few of them sent theirs.
        """
        unknown = [client for client in clients if client not in self._known]
        if unknown:
            self._known |= {**dict.fromkeys(unknown), **ask(unknown)}
        known = [self._known[client] for client in sorted(set(clients))]
        layer_gradients = [layer_gradient for layer_gradient in known if layer_gradient is not None]
        if len(layer_gradients) < FEWEST_CLIENTS:
            told = count_of(len(layer_gradients), "client")
            raise TooFewClients(f"{PHASE}: {told} sent theirs, at least {FEWEST_CLIENTS} are needed")
        return layer_gradients


def gather_layer_gradients(
    exchange: Exchange,
    settings: LayerGradientSettings,
    card: BaseModelCard,
    clients: Sequence[str],
    *,
    max_items: int,
    deadline: float,
) -> dict[str, LayerGradient]:
    """Ask clients for their layer gradients.

    Args:
        exchange: Exchange with the connected clients.
        settings: Positions and pairs the gradients are taken at.
        card: The base model.
        clients: Names of the clients.
        max_items: Largest weight of a client, in pairs.
        deadline: Longest wait for replies, in seconds.

    Returns:
        Admitted layer gradients by client name, sorted; refused replies are logged.
    """

    def admit(client: str, reply: Message) -> LayerGradient:
        records = open_records(reply, required={COUNTS_RECORD: MetricRecord, STATISTICS_RECORD: ConfigRecord})
        pairs = read_counts(records[COUNTS_RECORD], round=0, least=FEWEST_PAIRS)
        if settings.max_items and pairs > settings.max_items:
            raise Rejected(f"it counts {pairs} pairs, more than the {settings.max_items} asked for")
        data = statistics(records[STATISTICS_RECORD], LAYER_GRADIENT_KEY)
        sent = layer_gradient_from_bytes(data, min(pairs, max_items), card.layers, card.hidden_size)
        if float(sent.gradient.norm(dim=1).max()) > _GREATEST_GRADIENT:
            raise Rejected(f"a layer gradient is longer than {_GREATEST_GRADIENT:g}")
        if not bool(((sent.length >= 0) & (sent.length <= _GREATEST_LENGTH)).all()):
            raise Rejected(f"the lengths of its states are outside 0..{_GREATEST_LENGTH:g}")
        return sent

    config = {**settings.to_config(), ROUND_KEY: 0}
    contents = {
        client: RecordDict({SETTINGS_RECORD: ConfigRecord({**config})}) for client in sorted(set(clients))
    }
    return gather(exchange, contents, LAYER_GRADIENT_TYPE, admit, phase=PHASE, round=0, deadline=deadline)
