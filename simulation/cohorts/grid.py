"""A Flower grid in this process whose clients act side by side: the same app and messages, less time.

Messages and replies are those of Flower's own simulation, made by the same ClientApp and passed through
the same serialisation; only who waits for whom differs. A client's result equals the one it has alone up
to rounding, so the two backends agree to about 1e-5, not to the bit.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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

Request = tuple[Message, Context]
"""Message to a client, and Flower's context of its node."""
Respond = Callable[[Sequence[Request]], Iterator[Message]]
"""Function that yields a reply to each of these requests, as they are ready."""

RUN_ID = seed_from("run")
"""Flower's number of the run, of which there is one in a process."""


class CohortGrid(InProcessGrid):
    """Flower grid in this process, where clients with the same request answer side by side.

    They answer when a reply is pulled.
    """

    def __init__(self, folder: Path, clients: int, respond: Respond | None = None) -> None:
        """Make a node for each client.

        Args:
            folder: Folder of the run, whose client folders are partitions 0 to `clients` - 1.
            clients: Number of clients.
            respond: Has the clients answer; by default `respond_here`.
        """
        identify_process(RUN_ID)
        self._folder = folder
        self._respond = respond or respond_here
        self._nodes = {seed_from(f"node {n}"): n for n in range(clients)}
        self._waiting: dict[str, Request] = {}
        self._replies: dict[str, Iterator[Message]] = {}
        self._answers: dict[str, Message] = {}
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
            node = message.metadata.dst_node_id
            context = node_context(self._folder, node, self._nodes[node], len(self._nodes))
            self._waiting[name] = (transmitted(message), context)
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages; a missing one sets all requests that wait to work."""
        pulled = []
        for name in message_ids:
            self._await(name)
            if name in self._answers:
                pulled.append(self._answers.pop(name))
        return pulled

    def _await(self, name: str) -> None:
        if name in self._waiting:
            replies = self._respond(list(self._waiting.values()))
            self._replies |= dict.fromkeys(self._waiting, replies)
            self._waiting.clear()
        while name in self._replies and name not in self._answers:
            reply = next(self._replies[name], None)
            if reply is None:
                del self._replies[name]
                return
            request = reply.metadata.reply_to_message_id
            del self._replies[request]
            self._answers[request] = reply


def node_context(folder: Path, node: int, partition: int, partitions: int) -> Context:
    """Make Flower's context of one client's node.

    Args:
        folder: Folder of the run.
        node: Flower's number of the node.
        partition: Number of the client's folder.
        partitions: Number of clients in the run.
    """
    return Context(
        run_id=RUN_ID,
        node_id=node,
        node_config={"partition-id": partition, "num-partitions": partitions},
        state=RecordDict(),
        run_config={"run-dir": str(folder)},
    )


def respond_here(requests: Sequence[Request]) -> Iterator[Message]:
    """Yield a reply to each request; the clients with the same request act side by side, in this process.

    Args:
        requests: Messages to clients, each with the context of its node.
    """
    groups: dict[str, list[Request]] = {}
    for request in requests:
        groups.setdefault(_request_digest(request[0]), []).append(request)
    for alike in groups.values():
        asked_for_status = alike[0][0].metadata.message_type == STATUS_TYPE
        replies = (app(*request) for request in alike) if asked_for_status else respond(alike)
        yield from map(transmitted, replies)


def _request_digest(message: Message) -> str:
    """Digest a request without its addressee; it is the same for all clients of a phase or round."""
    digest = hashlib.sha256()
    for array in (array for record in message.content.array_records.values() for array in record.values()):
        digest.update(array.data)
    for record in message.content.config_records.values():
        for name in sorted(record):
            value = record[name]
            data = value if isinstance(value, bytes) else repr(value).encode()
            digest.update(f"{name} {type(value).__name__} {len(data)} ".encode())
            digest.update(data)
    return f"{message.metadata.message_type} {digest.hexdigest()}"
