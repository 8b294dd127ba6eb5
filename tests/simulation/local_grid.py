"""A Flower grid that calls the ClientApp directly, without Ray, and records every reply."""

from collections.abc import Iterable
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fedperfit.simulation.client_app import app

RUN_ID = 7


class LocalGrid(Grid):
    """Node i + 1 is partition i of the run in `folder`."""

    def __init__(self, folder: Path, clients: int) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, 0, 1
        self.clients = clients
        self.run_config = {"run-dir": str(folder)}
        self.replies: dict[str, Message] = {}
        self.received: list[tuple[int, str, RecordDict | None, str]] = []
        """Node, message type, content and error text of every reply, in order of arrival."""

    def set_run(self, run: object) -> None:
        raise NotImplementedError

    @property
    def run(self) -> object:
        raise NotImplementedError

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError

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
            message.metadata.__dict__["_message_id"] = message_id
            crossed = message_from_proto(message_to_proto(message))
            self.replies[message_id] = message_from_proto(message_to_proto(app(crossed, context)))
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found = [self.replies.pop(name) for name in message_ids if name in self.replies]
        for reply in found:
            error = "" if reply.has_content() else reply.error.reason
            content = reply.content if reply.has_content() else None
            self.received.append((reply.metadata.src_node_id, reply.metadata.message_type, content, error))
        return found

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        raise NotImplementedError
