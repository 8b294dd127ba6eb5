"""A Flower grid that calls the ClientApp directly, without Ray, and records every reply."""

from collections.abc import Iterable
from pathlib import Path

from flwr.app import Context, Message, RecordDict

from fedperfit.protocol.system.flower_internals import (
    InProcessGrid,
    identify_process,
    set_message_id,
    transmitted,
)
from fedperfit.simulation.client_app import app

RUN_ID = 7


class LocalGrid(InProcessGrid):
    """Node i + 1 is partition i of the run in `folder`."""

    def __init__(self, folder: Path, clients: int) -> None:
        identify_process(RUN_ID)
        self.clients = clients
        self.run_config = {"run-dir": str(folder)}
        self.replies: dict[str, Message] = {}
        self.received: list[tuple[int, str, RecordDict | None, str]] = []
        """Node, message type, content and error text of every reply, in order of arrival."""

    def get_node_ids(self) -> Iterable[int]:
        return list(range(1, self.clients + 1))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            context = Context(
                run_id=RUN_ID,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": self.clients},
                state=RecordDict(),
                run_config=self.run_config,
            )
            message_id = f"message-{len(self.replies)}"
            set_message_id(message, message_id)
            self.replies[message_id] = transmitted(app(transmitted(message), context))
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found = [self.replies.pop(name) for name in message_ids if name in self.replies]
        for reply in found:
            error = "" if reply.has_content() else reply.error.reason
            content = reply.content if reply.has_content() else None
            self.received.append((reply.metadata.src_node_id, reply.metadata.message_type, content, error))
        return found
