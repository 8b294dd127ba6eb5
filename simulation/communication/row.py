"""Rows of the study: their interface, and how they are found, by name, one file for each family.

A row trains what it shares over the same clients, in messages whose bytes are counted, and answers held-out
people's questions with it. It never sees their answers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from fedperfit.edge.agent.history import History
from fedperfit.protocol.messages.ledger import Entry
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Prompt
from fedperfit.simulation.communication.rates import Rates
from fedperfit.simulation.communication.settings import CommunicationSettings
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.plugins import found_by_name


class Family(StrEnum):
    """Families of rows, in the order of the table."""

    NOTHING = "nothing sent"
    WHOLE = "whole shifts"
    BASIS = "coordinates in a basis"
    ADAPTER = "adapters"
    PERSONAL = "with a personal part"


@dataclass(frozen=True)
class Asked:
    """A person who is asked, without the answers."""

    history: History
    """Own items, for rows with a personal part alone."""
    questions: Sequence[str]
    """Questions as in the benchmark."""


class Row(ABC):
    """One way to train over clients: one row of the table."""

    name: ClassVar[str]
    """Name in files and options: small letters, digits and hyphens."""
    title: ClassVar[str]
    """Name in tables, for people."""
    family: ClassVar[Family]
    """Family, which sets place and colour."""
    public: ClassVar[bool] = False
    """Whether it needs a basis of public items."""
    searched: ClassVar[bool] = True
    """Whether it has a rate to choose."""
    reference: ClassVar[str] = "perfit"
    """Name of the row that it is compared with."""
    fewer_rounds: ClassVar[int] = 1
    """Number by which rounds are divided and passes of a round over a client's items multiplied."""

    def __init__(self, context: MethodContext, settings: CommunicationSettings, rates: Rates) -> None:
        """Take up the row's surroundings.

        Args:
            context: Model, task and seed.
            settings: Settings of the study.
            rates: Learning rates.
        """
        self.context, self.settings, self.rates = context, settings, rates

    @abstractmethod
    def learn(self, clients: Sequence[History], folder: Path) -> list[Entry]:
        """Train over clients, and return the sizes of all messages.

        Args:
            clients: Their histories; names are unique.
            folder: Empty folder for files of the training.
        """

    @abstractmethod
    def answer(self, people: Sequence[Asked]) -> list[list[str]]:
        """Answer everybody's questions, labels and scores as texts.

        Args:
            people: People who took no part in the training.
        """

    @property
    def rounds(self) -> int:
        """Number of rounds of this row."""
        return max(1, self.settings.rounds // self.fewer_rounds)

    @property
    def epochs(self) -> int:
        """Number of passes over a client's items in a round, which leaves passes in all as they are."""
        return max(1, self.settings.rounds // self.rounds)

    def answered_alike(
        self, people: Sequence[Asked], answer: Callable[[list[Prompt]], list[str]]
    ) -> list[list[str]]:
        """Answer everybody's questions by the same model.

        Args:
            people: People who are asked.
            answer: Answers prompts.
        """
        prompts = [self.context.prompt(question) for person in people for question in person.questions]
        answers = iter(answer(prompts))
        return [[next(answers) for _ in person.questions] for person in people]


def rows_by_name() -> dict[str, type[Row]]:
    """Return all rows by name, in the order of the table."""
    from fedperfit.simulation.communication import rows

    families = list(Family)
    found: dict[str, type[Row]] = found_by_name(Row, rows, (), "row")
    return dict(sorted(found.items(), key=lambda entry: families.index(entry[1].family)))


def chosen(found: Mapping[str, type[Row]], names: Sequence[str]) -> dict[str, type[Row]]:
    """Return the rows of these names in the order of the table, all without any.

    Raises:
        InputError: There is no such row.
    """
    unknown = [name for name in names if name not in found]
    if unknown:
        raise InputError(f"unknown row {unknown[0]!r}: expected some of {', '.join(found)}")
    return {name: row for name, row in found.items() if not names or name in names}
