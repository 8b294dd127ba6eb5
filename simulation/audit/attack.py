"""Attacks: their interface, and how they are found, by name, one file each.

An attack says of each of its trials how sure it is that something is true of a person: that an item was
used, that two shifts are one person's. It comes with a positive control, in which there is something plain
to see, and a null control, in which there is nothing: an attack that fails the one proves nothing by failing,
and one that succeeds in the other counts something else.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.audit.ground import Ground
from fedperfit.simulation.plugins import found_by_name


class Role(StrEnum):
    """What a condition of an attack is there for."""

    ATTACK = "attack"
    POSITIVE = "positive control"
    NULL = "null control"


@dataclass(frozen=True)
class Trials:
    """Scores of some trials on one person under one condition."""

    condition: str
    """Name of the condition, one of the attack's."""
    user: str
    """The person, over whom intervals are made."""
    scores: Sequence[float]
    """How sure the attacker is of each trial; higher is surer."""
    truths: Sequence[bool]
    """Whether the attacker would be right."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


class Attack(ABC):
    """One way to learn of people what was not to be told."""

    name: ClassVar[str]
    """Name in files and options: small letters, digits and hyphens."""
    title: ClassVar[str]
    """Name in tables and pictures."""
    meaning: ClassVar[str]
    """What the attacker has and wants, in a sentence that everybody understands."""
    across: ClassVar[bool] = False
    """Whether a trial on one person is compared with those on all; else with the person's own."""

    def __init__(self, ground: Ground) -> None:
        """Take up the surroundings.

        Args:
            ground: People, model and settings of the audit.
        """
        self.ground = ground

    @abstractmethod
    def conditions(self) -> dict[str, Role]:
        """Name the conditions, in the order of the table."""

    @abstractmethod
    def subjects(self) -> list[str]:
        """Name the parts of the work: persons, or groups of them."""

    @abstractmethod
    def trials(self, subject: str) -> list[Trials]:
        """Attack one subject under every condition; the same each time that it is called.

        Args:
            subject: One of `subjects`.
        """

    def beyond(self, condition: str, trials: Sequence[Trials]) -> dict[str, Any]:
        """Return figures of this attack's own about a condition, each `{"value", "low", "high"}`.

        Args:
            condition: One of `conditions`.
            trials: All trials under it.
        """
        return {}


def attacks_by_name(files: Sequence[Path] = ()) -> dict[str, type[Attack]]:
    """Return all attacks by name.

    Args:
        files: Python files with attacks besides those that ship.

    Raises:
        InputError: A file cannot be imported or holds no attack, or a name is used twice.
    """
    from fedperfit.simulation.audit import attacks

    return dict(sorted(found_by_name(Attack, attacks, files, "attack").items()))


def chosen(found: Mapping[str, type[Attack]], names: Sequence[str]) -> dict[str, type[Attack]]:
    """Return the attacks of these names, all without any.

    Raises:
        InputError: There is no such attack.
    """
    unknown = [name for name in names if name not in found]
    if unknown:
        raise InputError(f"unknown attack {unknown[0]!r}: expected some of {', '.join(found)}")
    return {name: found[name] for name in names or found}
