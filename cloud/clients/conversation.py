"""A conversation with clients that are asked whenever one is free, each within its own time."""

from collections.abc import Iterator

from flwr.app import Message, RecordDict

from fedperfit.cloud.clients.exchange import Exchange, Outstanding, Pause, Transfer, entries
from fedperfit.protocol.messages.ledger import Entry


class Conversation:
    """Requests of one type that are on the way, and their replies, counted in the ledger."""

    def __init__(self, exchange: Exchange, message_type: str, phase: str) -> None:
        """Ask nobody yet.

        Args:
            exchange: Exchange with the connected clients.
            message_type: Flower's type of the messages.
            phase: Phase, for the ledger.
        """
        self._exchange, self._phase, self._clock = exchange, phase, exchange.clock
        self._transfers: list[Transfer] = []
        self._messages = Outstanding(exchange.grid, message_type, exchange.names, self._transfers)
        self._replies: Iterator[tuple[int, Message]] = iter(())
        self._ends: dict[str, float] = {}

    @property
    def asked(self) -> list[str]:
        """Clients that owe a reply, sorted."""
        return sorted(self._ends)

    def ask(self, client: str, content: RecordDict, *, round: int, deadline: float) -> None:
        """Send a client its content; it owes a reply from now on.

        Args:
            client: Name of the client.
            content: Records to send.
            round: Number of the round, for Flower.
            deadline: Longest wait for the reply, in seconds.
        """
        self._ends[client] = self._clock.now() + deadline
        node = self._exchange.nodes[client]
        if not self._messages.send(node, content, group=str(round), deadline=deadline):
            self._ends[client] = self._clock.now()

    def next(self) -> tuple[str, Message | None]:
        """Wait for a reply, and return it with its client; None where the client's time is over."""
        pause = Pause(self._clock)
        while True:
            began = self._clock.now()
            for node, reply in self._replies:
                return self._ended(self._exchange.names[node]), reply
            self._replies = self._messages.arrived()
            for node, reply in self._replies:
                return self._ended(self._exchange.names[node]), reply
            first = min(self._ends, key=lambda client: (self._ends[client], client))
            if self._clock.now() >= self._ends[first]:
                self._messages.give_up(self._exchange.nodes[first])
                return self._ended(first), None
            pause.sleep(began, self._ends[first], came=False)

    def write(self, round: int) -> list[Entry]:
        """Write what was sent and received since the last time into the ledger, and return it.

        Args:
            round: Number of the round, for the ledger.
        """
        made = entries(self._transfers, self._exchange.names, phase=self._phase, round=round)
        self._exchange.ledger.add(made)
        self._transfers.clear()
        return made

    def _ended(self, client: str) -> str:
        del self._ends[client]
        return client
