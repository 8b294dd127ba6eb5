"""Requests to clients and their replies over Flower's Message API, counted byte by byte in the ledger."""

import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError

from fedperfit.cloud.clients.clock import MACHINE, Clock
from fedperfit.cloud.clients.sizes import Sizes, measure
from fedperfit.protocol.messages.ledger import Direction, Entry, Ledger
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.flower_internals import MalformedContent, set_reply_to

logger = logging.getLogger("fedperfit.cloud")

_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_DUTY = 4.0
"""Sleep at least this many times as long as the polling took: clients may share the machine."""
_GRACE_SECONDS = 60.0
"""Messages outlive the deadline by this, so that the deadline is ours and not the SuperLink's."""
_LEAST_WAIT_SECONDS = 30.0
"""Shortest wait for the others once enough have replied."""
_UNDECODABLE = (
    *(ValueError, TypeError, LookupError, AttributeError, RecursionError),
    *(DecodeError, MalformedContent),
)
"""What Flower raises while it decodes a hostile reply, before there is a message to refuse."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Sizes of one message that was sent or received."""

    node: int
    """Flower's id of the node."""
    direction: Direction
    """Way of the message: `down` or `up`."""
    sizes: Sizes
    """Bytes of the message, in all and by tensor."""


class Exchange:
    """Exchanges messages with clients by name, and keeps the ledger."""

    def __init__(
        self,
        grid: Grid,
        ledger: Ledger,
        names: Mapping[int, str],
        on_reply: Callable[[str, int, int], None] | None = None,
        clock: Clock = MACHINE,
    ) -> None:
        """Set up an exchange with connected clients.

        Args:
            grid: Flower's grid.
            ledger: Ledger of all messages.
            names: Client names by node id, as `roster` found them.
            on_reply: Called with the phase, the number of replies so far and of the clients asked.
            clock: Clock by which replies are waited for.
        """
        self.grid, self.ledger, self.names = grid, ledger, dict(names)
        self.on_reply, self.clock = on_reply, clock
        self.last: list[Entry] = []
        """Ledger entries of the last `ask`."""
        self.nodes = {name: node for node, name in self.names.items()}
        """Node ids by client name."""

    def ask(
        self,
        contents: Mapping[str, RecordDict],
        message_type: str,
        *,
        phase: str,
        round: int,
        deadline: float,
        enough: int | None = None,
    ) -> Generator[tuple[str, Message], None, None]:
        """Send each client its content and yield (client, reply) as replies arrive.

        Ends when all have replied or the deadline has passed; the caller ends it earlier by closing it
        (`contextlib.closing`). The ledger is written at the end, in one append, sorted by client and
        direction. Nothing is sent before the first reply is requested.

        Args:
            contents: Records to send, by client name.
            message_type: Flower's type of the messages.
            phase: Phase, for the ledger and for `on_reply`.
            round: Number of the round, for the ledger.
            deadline: Longest wait for replies, in seconds.
            enough: Number of replies after which the others have as long again as those took, and no longer;
                None waits for all until the deadline.

        Raises:
            InputError: If a client is not connected.
        """
        for client in contents:
            if client not in self.nodes:
                raise InputError(f"client {client!r} is not connected")
        transfers: list[Transfer] = []
        by_node = {self.nodes[client]: content for client, content in contents.items()}
        replies = converse(
            self.grid,
            by_node,
            message_type,
            names=self.names,
            group=str(round),
            deadline=deadline,
            transfers=transfers,
            clock=self.clock,
            enough=enough,
        )
        try:
            for count, (node, reply) in enumerate(replies, start=1):
                if self.on_reply is not None:
                    self.on_reply(phase, count, len(contents))
                yield self.names[node], reply
        finally:
            replies.close()
            self.last = entries(transfers, self.names, phase=phase, round=round)
            self.ledger.add(self.last)


class Outstanding:
    """Messages of one type that nodes have not answered yet."""

    def __init__(
        self, grid: Grid, message_type: str, names: Mapping[int, str], transfers: list[Transfer]
    ) -> None:
        """Begin with none.

        Args:
            grid: Flower's grid.
            message_type: Flower's type of the messages.
            names: Client names by node id, for the log.
            transfers: List to which the size of every message is appended.
        """
        self._grid, self._type, self._names, self._transfers = grid, message_type, names, transfers
        self.waiting: dict[str, int] = {}
        """Nodes by the id of the message that they owe a reply to."""
        self._answered: set[str] = set()

    def send(self, node: int, content: RecordDict, *, group: str, deadline: float) -> bool:
        """Send a node its content; returns whether that was possible.

        Args:
            node: Flower's id of the node.
            content: Records to send.
            group: Flower's group id of the message.
            deadline: Longest wait for the reply, in seconds.
        """
        message = Message(content, node, self._type, ttl=deadline + _GRACE_SECONDS, group_id=group)
        ids = [message_id for message_id in self._grid.push_messages([message]) if message_id]
        if not ids:
            logger.warning("%s: the message could not be sent", self._names.get(node, f"node {node}"))
            return False
        self.waiting[ids[0]] = node
        self._transfers.append(Transfer(node, "down", measure(message)))
        return True

    def arrived(self) -> Generator[tuple[int, Message], None, None]:
        """Yield the replies that are there now, with the nodes that sent them, at most one per message."""
        for message_id, node in list(self.waiting.items()):
            for reply in _pull(self._grid, message_id, node, self._type):
                sender = _sender(reply, self.waiting, self._answered, self._names)
                if sender is not None:
                    self._answered.add(reply.metadata.reply_to_message_id)
                    del self.waiting[reply.metadata.reply_to_message_id]
                    self._transfers.append(Transfer(sender, "up", measure(reply)))
                    yield sender, reply

    def give_up(self, node: int) -> None:
        """Wait for a node no longer."""
        self.waiting = {name: other for name, other in self.waiting.items() if other != node}


class Pause:
    """Sleep between two looks: longer and longer while nothing comes, and by what a look takes."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._seconds = clock, _SHORTEST_PAUSE

    def sleep(self, began: float, end: float, *, came: bool) -> None:
        """Sleep, but not past the end.

        Args:
            began: When the look began, by the clock.
            end: When there is nothing to wait for any longer.
            came: Whether something came.
        """
        if came:
            self._seconds = _SHORTEST_PAUSE
        took = self._clock.now() - began
        self._clock.wait(max(self._seconds, _DUTY * took), end)
        self._seconds = min(1.5 * self._seconds, _LONGEST_PAUSE)


def converse(
    grid: Grid,
    contents: Mapping[int, RecordDict],
    message_type: str,
    *,
    names: Mapping[int, str],
    group: str,
    deadline: float,
    transfers: list[Transfer],
    clock: Clock = MACHINE,
    enough: int | None = None,
) -> Generator[tuple[int, Message], None, None]:
    """Send each node its content and yield (node, reply) as replies arrive, at most one per node.

    Messages are fetched one by one: fetched together, one reply that cannot be decoded would take the others
    with it. It is yielded as an error reply. A reply from a node that was not asked, a second reply and an
    unsolicited one are logged and ignored.

    Args:
        grid: Flower's grid.
        contents: Records to send, by node id.
        message_type: Flower's type of the messages.
        names: Client names by node id, for the log.
        group: Flower's group id of the messages.
        deadline: Longest wait for replies, in seconds.
        transfers: List to which the size of every message is appended.
        clock: Clock by which replies are waited for.
        enough: Number of replies after which the others have as long again; None waits until the deadline.
    """
    messages = Outstanding(grid, message_type, names, transfers)
    for node, content in contents.items():
        messages.send(node, content, group=group, deadline=deadline)
    asked, start = len(messages.waiting), clock.now()
    end = start + deadline
    pause = Pause(clock)
    while messages.waiting:
        began, before = clock.now(), len(messages.waiting)
        yield from messages.arrived()
        if enough is not None and asked - len(messages.waiting) >= enough:
            now = clock.now()
            end, enough = min(end, now + max(now - start, _LEAST_WAIT_SECONDS)), None
        if clock.now() >= end or not messages.waiting:
            break
        pause.sleep(began, end, came=len(messages.waiting) < before)


def _pull(grid: Grid, message_id: str, node: int, message_type: str) -> list[Message]:
    try:
        return list(grid.pull_messages([message_id]))
    except _UNDECODABLE as error:
        reason = f"the reply cannot be decoded ({type(error).__name__})"
        reply = Message(Error(0, reason), reply_to=Message(RecordDict(), node, message_type))
        set_reply_to(reply, message_id)
        return [reply]


def _sender(
    reply: Message, waiting: Mapping[str, int], answered: set[str], names: Mapping[int, str]
) -> int | None:
    """Return the node that owes this reply; None, with a warning, if the reply is to be ignored."""
    request = reply.metadata.reply_to_message_id
    source = reply.metadata.src_node_id
    name = names.get(source, f"node {source}")
    if request in answered:
        logger.warning("%s: ignored a second reply to the same message", name)
        return None
    if request not in waiting:
        logger.warning("%s: ignored a reply that nobody asked for", name)
        return None
    node = waiting[request]
    if source != node and not reply.has_error():  # errors may come from the SuperLink itself
        logger.warning("%s: ignored its reply to a message for %s", name, names.get(node, f"node {node}"))
        return None
    return node


def entries(transfers: list[Transfer], names: Mapping[int, str], *, phase: str, round: int) -> list[Entry]:
    """Make the ledger entries of transfers, sorted by client and direction.

    Args:
        transfers: Sizes of the messages.
        names: Client names by node id; an unknown node n is called `node-n`.
        phase: Phase of the messages.
        round: Number of their round.
    """
    made = [
        Entry(
            phase,
            round,
            names.get(t.node, f"node-{t.node}"),
            t.direction,
            t.sizes.payload,
            t.sizes.message,
            t.sizes.tensors,
        )
        for t in transfers
    ]
    return sorted(made, key=lambda entry: (entry.client, entry.direction))
