"""What every tracker does: take settings once, figures as they come, and results at the end."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from types import ModuleType
from typing import ClassVar

PROJECT = "fedperfit"
"""Project, or experiment, that all runs belong to."""

Settings = Mapping[str, str | int | float | bool]
"""Settings and versions by name, as trackers take them."""


@dataclass(frozen=True)
class TrackedRun:
    """A run as it is begun in a tracker."""

    folder: Path
    """The run folder, whose name is that of the run."""
    command: str
    """Command that does the run, such as `simulate`."""
    settings: Settings
    """The run's settings, and the versions of what it is done with."""


@dataclass(frozen=True)
class Results:
    """What a run came to."""

    figures: Mapping[str, float]
    """The final figures by name, parts of which are separated by `/`."""
    pictures: Mapping[str, bytes]
    """Plots of the report as PNG files, by title."""
    report: str
    """Path of the report; empty where there is none."""


class End(Enum):
    """How a run ended."""

    FINISHED = auto()
    FAILED = auto()
    STOPPED = auto()
    """By Ctrl-C or the signal of a `kill`: the run can go on."""


class Tracker(ABC):
    """One run in one tracker."""

    name: ClassVar[str]
    """Name of the tracker's library."""
    identity: str = ""
    """What the tracker finds this run by when it is resumed; empty where it needs nothing."""

    def __init__(self, library: ModuleType, run: TrackedRun, known: str) -> None:
        """Begin the run in the tracker, or go on with it.

        Args:
            library: The tracker's library.
            run: The run.
            known: The `identity` of the same run when it was begun; empty for a new one.
        """
        self.library, self.run = library, run
        self.begin(known)

    @abstractmethod
    def begin(self, known: str) -> None:
        """Open the run with its settings, the one with identity `known` where there is one."""

    @abstractmethod
    def figures(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """Take figures of one step.

        Args:
            series: What the figures are of, such as the phase of training.
            step: Number of the step within the series, from 0 or 1.
            values: Figures by name.
        """

    @abstractmethod
    def results(self, results: Results) -> None:
        """Take what the run came to."""

    @abstractmethod
    def close(self, end: End) -> None:
        """End the run in the tracker."""
