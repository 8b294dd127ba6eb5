"""The cohort backend's grid, with everything that travels kept."""

from collections.abc import Iterable
from pathlib import Path

from flwr.app import Message

from fedperfit.simulation.cohorts.grid import CohortGrid


class Watched(CohortGrid):
    """Keeps every message, both ways, by node."""

    def __init__(self, folder: Path, clients: int) -> None:
        super().__init__(folder, clients)
        self.seen: dict[int, list[bytes]] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        for message in messages:
            self._keep(message.metadata.dst_node_id, message)
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(super().pull_messages(message_ids))
        for reply in replies:
            self._keep(reply.metadata.src_node_id, reply)
        return replies

    def _keep(self, node: int, message: Message) -> None:
        values = [] if message.has_error() else [v for r in message.content.values() for v in r.values()]
        said = [value if isinstance(value, bytes) else repr(value).encode() for value in values]
        self.seen.setdefault(node, []).extend(said)
