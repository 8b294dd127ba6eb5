"""The base model alone, for which nothing travels."""

from collections.abc import Sequence
from pathlib import Path

from fedperfit.edge.agent.history import History
from fedperfit.protocol.messages.ledger import Entry
from fedperfit.simulation.communication.row import Asked, Family, Row


class Base(Row):
    """The frozen model as it is."""

    name = "base"
    title = "base model alone"
    family = Family.NOTHING
    searched = False

    def learn(self, clients: Sequence[History], folder: Path) -> list[Entry]:
        """Train nothing, and send nothing."""
        return []

    def answer(self, people: Sequence[Asked]) -> list[list[str]]:
        """Answer without any shift."""
        return self.answered_alike(people, self.context.answer)
