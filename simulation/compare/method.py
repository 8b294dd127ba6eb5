"""What a method of personalization is, and how methods are found: by name, one file each.

A method sees the others' pairs and one person's history, then answers that person's questions. Questions
come as bare texts; golds, and other people's questions and private items, are never in its reach.
"""

import importlib
import importlib.util
import math
import pkgutil
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar

from fedperfit.edge.agent.history import History
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Task
from fedperfit.simulation.compare.context import Context, Values


class Family(IntEnum):
    """Groups of rows, in the order of the table."""

    FLOOR = 0
    PROMPT = 1
    ADAPTER = 2
    STEERING = 3
    SHIFT = 4
    OTHER = 5


@dataclass(frozen=True)
class LogUniform:
    """A number whose logarithm is drawn uniformly."""

    low: float
    high: float

    def draw(self, rng: random.Random) -> float:
        """Rounded to three digits, so that a log of draws can be read and repeated."""
        return float(f"{math.exp(rng.uniform(math.log(self.low), math.log(self.high))):.3g}")


Space = Mapping[str, Sequence[Any] | LogUniform]
"""What the random search draws from: choices, or a range."""


class Method(ABC):
    """One row of the table, with its hyper-parameters.

    `learn` is called once, before any `fit`; `fit` and `answer` for one person at a time.
    """

    name: ClassVar[str]
    """In files and options: small letters, digits and hyphens."""
    title: ClassVar[str]
    """In tables."""
    family: ClassVar[Family] = Family.OTHER
    space: ClassVar[Space] = {}
    """Hyper-parameters that are searched; without any, the method has none to choose."""
    builds_on: ClassVar[str | None] = None
    """A method whose chosen values this one takes over, and searches its own on top of."""
    collective: ClassVar[bool] = False
    """Whether `learn` makes something of the others."""
    most_users: ClassVar[int | None] = None
    """Where a method is too slow for all target users: the first so many."""
    sees_targets_before: ClassVar[bool] = False
    """Is given `before`, the targets before the current one: a published bug, on record."""

    def __init__(self, context: Context, values: Values) -> None:
        """values: of `space`, and of the method it builds on."""
        self.context, self.values = context, values
        self.before: Sequence[History] = ()

    @classmethod
    def suits(cls, task: Task) -> bool:
        """Whether the task has what the method needs."""
        return True

    def learn(self, others: Sequence[History]) -> None:
        """Make the collective part of the others' pairs."""
        return

    def fit(self, history: History) -> Any:
        """What is kept of one person; `history` may be empty."""
        return history

    @abstractmethod
    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        """Answers to one person's questions."""

    def parameters(self, fitted: Any) -> int:
        """Numbers that are kept for one person."""
        return 0

    def bytes_down(self) -> int:
        """Bytes of the collective part: what a person receives, and what a contributor sends per round."""
        return 0

    def bytes_up(self) -> int:
        """Bytes of a person's that leave their machine to fit and to answer; none where both happen there."""
        return 0


def registry(files: Sequence[Path] = ()) -> dict[str, type[Method]]:
    """All methods by name: those that ship, and those in `files`, in the order of the table.

    Raises InputError for a file that cannot be imported or holds no method, or a name used twice.
    """
    from fedperfit.simulation.compare import methods

    modules = [
        importlib.import_module(f"{methods.__name__}.{found.name}")
        for found in pkgutil.iter_modules(methods.__path__)
    ]
    found: dict[str, type[Method]] = {}
    for module in [*modules, *map(_import_file, files)]:
        own = [value for value in vars(module).values() if _is_method(value, module.__name__)]
        if not own and module not in modules:
            raise InputError(f"{module.__file__}: holds no Method with a name")
        for method in own:
            if method.name in found:
                raise InputError(f"two methods are called {method.name!r}")
            found[method.name] = method
    for name in found:
        lineage(found, name)
    return dict(sorted(found.items(), key=lambda entry: entry[1].family))


def lineage(methods: Mapping[str, type[Method]], name: str) -> list[str]:
    """`name` after everything it builds on, first things first.

    Raises InputError when that is not there, or builds on `name` itself.
    """
    chain = [name]
    while (below := methods[chain[0]].builds_on) is not None:
        if below not in methods or below in chain:
            raise InputError(f"{chain[0]} builds on {below!r}, which cannot be")
        chain.insert(0, below)
    return chain


def _is_method(value: Any, module: str) -> bool:
    return (
        isinstance(value, type)
        and issubclass(value, Method)
        and value.__module__ == module
        and hasattr(value, "name")
    )


def _import_file(path: Path) -> Any:
    name = f"fedperfit_method_{path.stem}"
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise InputError(f"{path}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:  # whatever a file raises when it is imported
        raise InputError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
    return module
