"""Methods of personalization: their interface, and how they are found, by name, one file each.

A method sees the others' pairs and one user's history, then answers that user's questions. Questions come as
bare texts; golds, and other people's questions and private items, are never in its reach.
"""

import json
import math
import random
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from fedperfit.edge.agent.history import History
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Task
from fedperfit.simulation.compare.context import MethodContext, Values
from fedperfit.simulation.plugins import found_by_name


class Family(IntEnum):
    """Families of methods, in the order of the table."""

    FLOOR = 0
    """Nothing of the user is fitted: the base model alone, or the likeliest answer."""
    PROMPT = 1
    """The user's items stand in the prompt."""
    ADAPTER = 2
    """Weights are adapted, as by LoRA."""
    STEERING = 3
    """A vector, the same for every input, is added to hidden states."""
    SHIFT = 4
    """Hidden states are shifted by a trained map of low rank, as in PerFit."""
    OTHER = 5


@dataclass(frozen=True)
class LogUniform:
    """A range from which numbers are drawn with a uniform logarithm."""

    low: float
    """Lower end, above 0."""
    high: float
    """Upper end, not below the lower."""

    def __post_init__(self) -> None:
        """Check the ends; raises InputError."""
        if not 0 < self.low <= self.high < math.inf:
            raise InputError(f"LogUniform({self.low}, {self.high}): expected 0 < low <= high")

    def draw(self, rng: random.Random) -> float:
        """Draw a number, rounded to three digits so that a log of draws can be read and repeated.

        Args:
            rng: Random numbers of the search.
        """
        return float(f"{math.exp(rng.uniform(math.log(self.low), math.log(self.high))):.3g}")


Space = Mapping[str, Sequence[Any] | LogUniform]
"""Choices or range of each hyper-parameter that the random search draws."""


class Method(ABC):
    """A method of personalization with its hyper-parameters: one row of the table.

    `learn` is called once, before any `fit`; `fit` and `answer` are called for one user at a time.
    """

    name: ClassVar[str]
    """Name in files and options: small letters, digits and hyphens."""
    title: ClassVar[str]
    """Name in tables and pictures."""
    family: ClassVar[Family] = Family.OTHER
    """Family, which sets place and colour."""
    space: ClassVar[Space] = {}
    """Hyper-parameters that are searched; empty where there is none to choose."""
    builds_on: ClassVar[str | None] = None
    """Name of a method whose chosen values this one takes over, and searches its own on top of."""
    collective: ClassVar[bool] = False
    """Whether `learn` makes something of the others."""
    most_users: ClassVar[int | None] = None
    """Number of target users, the first ones, for a method that is too slow for all; None for all."""
    sees_targets_before: ClassVar[bool] = False
    """Whether the method is given `before`, the targets before the current one, as OPPU's published code
    is.
    """

    def __init__(self, context: MethodContext, values: Values) -> None:
        """Take up the method's surroundings.

        Args:
            context: Model, task and seed.
            values: Values of `space`, and those of the method it builds on.
        """
        self.context, self.values = context, values
        self.before: Sequence[History] = ()

    @classmethod
    def suits(cls, task: Task) -> bool:
        """Whether the task has what the method needs.

        Args:
            task: Task of a comparison; the method has no row where it does not suit.
        """
        return True

    def learn(self, others: Sequence[History]) -> None:
        """Make the collective part, which `fit` and `answer` find on `self`.

        Args:
            others: Histories of people who are no targets.
        """
        return

    def fit(self, history: History) -> Any:
        """Return what is kept of one user, in any form that `answer` takes: the history itself by default.

        Args:
            history: The user's items; they may be none.
        """
        return history

    @abstractmethod
    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        """Answer one user's questions.

        Args:
            fitted: Result of `fit` for this user.
            questions: The user's questions as in the benchmark.

        Returns:
            An answer to each question, labels and scores as texts.
        """

    def parameters(self, fitted: Any) -> int:
        """Count the numbers that are kept for one user.

        Args:
            fitted: Result of `fit` for this user.
        """
        return 0

    def bytes_down(self) -> int:
        """Count the bytes of the collective part, which a user receives and a contributor sends per round."""
        return 0

    def bytes_up(self) -> int:
        """Count the bytes that leave a user's machine to fit and to answer; 0 where both happen there."""
        return 0


M = TypeVar("M", bound=Method)

_NAME = re.compile("[a-z0-9]+(-[a-z0-9]+)*")

ENTRY_POINTS = "fedperfit.methods"
"""Entry-point group of installed packages that bring methods: every process of a comparison finds them."""

_registered: dict[str, type[Method]] = {}


def register_method(method: type[M]) -> type[M]:
    """Add a method to the registry of this process; usable as a class decorator.

    Worker processes of `fedperfit compare` do not see it: name its file by `--method-file`, or bring it by an
    entry point of the group `fedperfit.methods` of an installed package.

    Args:
        method: Concrete subclass of `Method` with a `name` and a `title`. A class of the same module and
            qualified name replaces the one registered before, as when a notebook cell runs twice.

    Returns:
        The class itself.

    Raises:
        InputError: It is not a method with a name, what it says of itself cannot be used, or another method
            has that name.
    """
    if not (isinstance(method, type) and issubclass(method, Method) and hasattr(method, "name")):
        raise InputError(f"{method!r}: not a Method with a name")
    _check(method)
    known = registry().get(method.name)
    if known is not None and _identity(known) != _identity(method):
        raise InputError(f"two methods are called {method.name!r}")
    _registered[method.name] = method
    return method


def registry(files: Sequence[Path] = ()) -> dict[str, type[Method]]:
    """Return all methods by name, in the order of the table.

    Args:
        files: Python files with methods, besides those that ship, that installed packages bring, and that
            this process registered.

    Raises:
        InputError: A file or package cannot be imported or holds no method, a name is used twice, or what a
            method says of itself cannot be used.
    """
    from fedperfit.simulation.compare import methods

    by_name = found_by_name(Method, methods, files, "method")
    for method in [*_installed(), *_registered.values()]:
        if _identity(by_name.setdefault(method.name, method)) != _identity(method):
            raise InputError(f"two methods are called {method.name!r}")
    for name, method in by_name.items():
        _check(method)
        lineage(by_name, name)
    return dict(sorted(by_name.items(), key=lambda entry: entry[1].family))


def lineage(methods: Mapping[str, type[Method]], name: str) -> list[str]:
    """List `name` after everything it builds on, first things first.

    Args:
        methods: All methods by name.
        name: Name of one of them.

    Raises:
        InputError: A method it builds on does not exist, or builds on `name` itself.
    """
    chain = [name]
    while (parent := methods[chain[0]].builds_on) is not None:
        if parent not in methods:
            raise InputError(f"{chain[0]} builds on {parent!r}: there is no such method")
        if parent in chain:
            raise InputError(f"{chain[0]} builds on {parent!r}, which builds on {chain[0]}")
        chain.insert(0, parent)
    return chain


def _check(method: type[Method]) -> None:
    """Raise InputError, naming file and class, where what a method says of itself cannot be used."""
    file = getattr(sys.modules.get(method.__module__), "__file__", None) or method.__module__
    wrong = _wrong_attribute(method)
    if wrong:
        raise InputError(f"{file}: {method.__qualname__}: {wrong}")


def _wrong_attribute(method: type[Method]) -> str:
    lacking = ", ".join(sorted(method.__abstractmethods__))
    title, most = getattr(method, "title", None), method.most_users
    if lacking:
        return f"it lacks {lacking}"
    if not (isinstance(method.name, str) and _NAME.fullmatch(method.name)):
        return f"name={method.name!r}: expected small letters, digits and hyphens"
    if not (isinstance(title, str) and title.strip()):
        return f"title={title!r}: expected a name for tables"
    if not isinstance(method.family, Family):
        return f"family={method.family!r}: expected one of Family's"
    if most is not None and not (isinstance(most, int) and most >= 1):
        return f"most_users={most!r}: expected a number from 1, or None"
    if not isinstance(method.space, Mapping):
        return f"space={method.space!r}: expected choices or a LogUniform by name"
    wrong = (_wrong_choices(name, choices) for name, choices in method.space.items())
    return next(filter(None, wrong), "")


def _wrong_choices(name: str, choices: Any) -> str:
    if isinstance(choices, LogUniform):
        return ""
    if not isinstance(choices, list | tuple | range) or not choices:
        return f"space[{name!r}]={choices!r}: expected a list of choices or a LogUniform"
    try:
        written = [json.dumps(choice, allow_nan=False) for choice in choices]
    except (TypeError, ValueError):
        return f"space[{name!r}]={choices!r}: expected choices that JSON can hold"
    return f"space[{name!r}]={choices!r}: holds a choice twice" if len({*written}) < len(written) else ""


def _identity(method: type[Method]) -> tuple[str, str]:
    return method.__module__, method.__qualname__


def _installed() -> list[type[Method]]:
    """Methods that installed packages bring."""
    methods = []
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            method = entry.load()
        except (Exception, SystemExit) as error:  # whatever a package raises when it is imported
            raise InputError(f"{entry.value}: {type(error).__name__}: {error}") from None
        if not (isinstance(method, type) and issubclass(method, Method) and hasattr(method, "name")):
            raise InputError(f"{entry.value}: not a Method with a name")
        methods.append(method)
    return methods
