"""A Flower grid in this process whose clients act side by side: the same app and messages, less time.

Messages and replies are those of Flower's own simulation, made by the same ClientApp and passed through
the same serialisation; only who waits for whom differs. A client's result equals the one it has alone up
to rounding, so the two backends agree to about 1e-5, not to the bit.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from flwr.app import Context, Message, RecordDict

from fedperfit.protocol.messages.keys import STATUS_TYPE
from fedperfit.protocol.system.flower_internals import (
    InProcessGrid,
    identify_process,
    set_message_id,
    transmitted,
)
from fedperfit.protocol.system.seeds import seed_from
from fedperfit.simulation.client_app import app, respond

_Request = tuple[Message, Context]


class CohortGrid(InProcessGrid):
    """Flower grid in this process, where clients with the same request answer side by side.

    They answer when a reply is pulled.
    """

    def __init__(self, folder: Path, clients: int) -> None:
        """Make a node for each client.

        Args:
            folder: Folder of the run, whose client folders are partitions 0 to `clients` - 1.
            clients: Number of clients.
        """
        self._run_id = seed_from("run")
        identify_process(self._run_id)
        self._nodes = {seed_from(f"node {n}"): n for n in range(clients)}
        self._run_config: dict[str, bool | int | float | str] = {"run-dir": str(folder)}
        self._waiting: dict[str, _Request] = {}
        self._answers: dict[str, Message] = {}
        self._replies: dict[str, Iterator[Message]] = {}
        self._sent = 0

    def get_node_ids(self) -> Iterable[int]:
        """List the ids of all clients, which are always there."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep the messages until their replies are pulled, and return their ids."""
        ids = []
        for message in messages:
            self._sent += 1
            name = hashlib.sha256(f"message {self._sent}".encode()).hexdigest()
            set_message_id(message, name)
            context = Context(
                run_id=self._run_id,
                node_id=message.metadata.dst_node_id,
                node_config={
                    "partition-id": self._nodes[message.metadata.dst_node_id],
                    "num-partitions": len(self._nodes),
                },
                state=RecordDict(),
                run_config={**self._run_config},
            )
            self._waiting[name] = (transmitted(message), context)
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages; a missing one sets all requests like it to work."""
        pulled = []
        for name in message_ids:
            if name not in self._answers and name in self._waiting:
                self._answer(name)
            if name in self._answers:
                pulled.append(self._answers.pop(name))
        return pulled

    def _answer(self, name: str) -> None:
        message, context = self._waiting[name]
        if message.metadata.message_type == STATUS_TYPE:
            del self._waiting[name]
            self._answers[name] = transmitted(app(message, context))
            return
        digest = _request_digest(message)
        while name not in self._answers:
            if digest not in self._replies:
                requests = self._waiting.values()
                alike = [each for each in requests if _request_digest(each[0]) == digest]
                self._replies[digest] = respond(alike)
            reply = next(self._replies[digest], None)
            if reply is None:
                del self._replies[digest]
                continue
            request = reply.metadata.reply_to_message_id
            del self._waiting[request]
            self._answers[request] = transmitted(reply)


def _request_digest(message: Message) -> str:
    """Digest a request without its addressee; it is the same for all clients of a phase or round."""
    digest = hashlib.sha256()
    for array in (array for record in message.content.array_records.values() for array in record.values()):
        digest.update(array.data)
    for record in message.content.config_records.values():
        digest.update(repr(sorted(record.items())).encode())
    return f"{message.metadata.message_type} {digest.hexdigest()}"
