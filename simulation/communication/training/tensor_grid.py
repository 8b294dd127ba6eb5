"""A Flower grid in this process whose clients answer by a function: the messages and bytes of any other."""

from collections.abc import Callable, Iterable, Sequence

from flwr.app import Message

from fedperfit.protocol.system.flower_internals import (
    InProcessGrid,
    identify_process,
    set_message_id,
    transmitted,
)
from fedperfit.protocol.system.seeds import seed_from

_ID = "{:064x}"
"""Form of a message's id, as long as Flower's own."""


class TensorGrid(InProcessGrid):
    """Nodes of one federation, each asked when its reply is pulled.

    Attributes:
        names: Name of the client at each node.
    """

    def __init__(self, clients: Sequence[str], act: Callable[[str, Message], Message]) -> None:
        """Make a node for each client.

        Args:
            clients: Names of the clients.
            act: Returns a client's reply to a message.
        """
        identify_process(seed_from("run"))
        self.names = {seed_from(f"node {number}"): name for number, name in enumerate(clients)}
        self._act = act
        self._waiting: dict[str, Message] = {}
        self._sent = 0

    def get_node_ids(self) -> Iterable[int]:
        """List the ids of all clients, which are always there."""
        return list(self.names)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep the messages until their replies are pulled, and return their ids."""
        ids = []
        for message in messages:
            self._sent += 1
            ids.append(_ID.format(self._sent))
            set_message_id(message, ids[-1])
            self._waiting[ids[-1]] = transmitted(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages."""
        asked = [self._waiting.pop(each) for each in message_ids if each in self._waiting]
        return [transmitted(self._act(self.names[each.metadata.dst_node_id], each)) for each in asked]
