"""Trackers as a sink of a run's events, opened with the first and closed after the last."""

import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol

from fedperfit.cloud.job.events import OnEvent
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.cloud.tracking.figures import figures_of
from fedperfit.cloud.tracking.mlflow import MLflow
from fedperfit.cloud.tracking.names import TrackerName
from fedperfit.cloud.tracking.tensorboard import TensorBoard
from fedperfit.cloud.tracking.tracker import End, Results, Settings, TrackedRun, Tracker
from fedperfit.cloud.tracking.trackio import Trackio
from fedperfit.cloud.tracking.wandb import WeightsAndBiases
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import FedperfitError, InputError
from fedperfit.protocol.system.files import write_json

logger = logging.getLogger("fedperfit.cloud")

IDENTITIES = "track.json"
"""File in the run folder with what each tracker finds the run by."""
TRACKERS: Mapping[str, type[Tracker]] = {
    tracker.name: tracker for tracker in (TensorBoard, WeightsAndBiases, MLflow, Trackio)
}
_LONGEST = 300
"""Characters of the longest reason that a warning gives."""
_LIBRARIES = ("fedperfit", "torch", "transformers", "flwr", "numpy")


class Picture(Protocol):
    """A plot of a report."""

    def png(self) -> bytes:
        """Return the plot as a PNG file."""


Pictures = Callable[[Path], Mapping[str, Picture]]
"""Function that returns the plots of a finished run folder by title."""


def no_pictures(folder: Path) -> Mapping[str, Picture]:
    """Return no plots: what a run without a report has."""
    return {}


@contextmanager
def tracked(
    names: Sequence[TrackerName] | None, command: str, pictures: Pictures = no_pictures
) -> Iterator[OnEvent]:
    """Yield a function that hands a run's events to its trackers.

    A tracker that fails is left out from then on, with a warning: the run goes on.

    Args:
        names: The trackers; with none of them, events are taken and nothing is done.
        command: Command that does the run.
        pictures: Makes the plots that trackers get at the end; none of them may tell of single users.
    """
    sink = _Sink(names or [], command, pictures)
    try:
        yield sink.take
    except BaseException as error:
        sink.close(End.STOPPED if isinstance(error, KeyboardInterrupt) else End.FAILED)
        raise
    sink.close(End.FINISHED)


class _Sink:
    """Trackers of one run.

    Attributes:
        names: Names of the trackers.
        trackers: Those that are open.
        final: Final figures, once they are known.
    """

    def __init__(self, names: Sequence[TrackerName], command: str, pictures: Pictures) -> None:
        self.names, self._command, self._pictures = names, command, pictures
        self.trackers: list[Tracker] = []
        self.final: dict[str, float] = {}
        self._folder = Path()

    def take(self, event: Mapping[str, Any]) -> None:
        if not self.names:
            return
        kind = event["event"]
        if kind == "start":
            self._open(Path(event["run"]))
        elif kind == "figures":
            self.final = event["figures"]
        elif kind == "done":
            self._results(event.get("report", ""))
        elif found := figures_of(event):
            self._each(lambda tracker: tracker.figures(*found))

    def close(self, end: End) -> None:
        self._each(lambda tracker: tracker.close(end))
        self.trackers = []

    def _open(self, folder: Path) -> None:
        self._folder, path = folder, folder / IDENTITIES
        known = _known(path)
        run = TrackedRun(folder, self._command, settings_of(read_form(folder / SETTINGS, dict[str, Any])))
        for name in self.names:
            try:
                self.trackers.append(TRACKERS[name](import_module(name), run, known.get(name, "")))
            except FedperfitError:
                raise
            except Exception as error:
                logger.warning("%s does not follow this run: %s", name, _line(error))
        write_json(path, known | {tracker.name: tracker.identity for tracker in self.trackers})

    def _results(self, report: str) -> None:
        if self.trackers:
            results = Results(self.final, self._drawn(), _without_home(report))
            self._each(lambda tracker: tracker.results(results))

    def _drawn(self) -> dict[str, bytes]:
        """Return the plots as PNG files by title; none, with a warning, where they cannot be drawn."""
        try:
            return {title: picture.png() for title, picture in self._pictures(self._folder).items()}
        except Exception as error:  # the run is over and its report is there
            logger.warning("trackers get no plots: %s", _line(error))
            return {}

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for tracker in list(self.trackers):
            try:
                do(tracker)
            except Exception as error:  # whatever a tracker's server or disk does, the run goes on
                logger.warning("%s no longer follows this run: %s", tracker.name, _line(error))
                self.trackers.remove(tracker)


def _known(path: Path) -> dict[str, str]:
    """Read what trackers find a run by; nothing, with a warning, where the file is broken."""
    try:
        return read_form(path, dict[str, str]) if path.exists() else {}
    except InputError as error:
        logger.warning("trackers begin a run of their own: %s", error)
        return {}


def _line(error: Exception) -> str:
    """Return the beginning of what an error says, in one line."""
    return " ".join(str(error).split())[:_LONGEST]


def settings_of(settings: Mapping[str, Any]) -> Settings:
    """Return settings as trackers take them, with the versions of what a run is done with.

    Args:
        settings: Settings by key.
    """
    told: dict[str, str | int | float | bool] = {key: _said(value) for key, value in settings.items()}
    told["version/python"] = platform.python_version()
    for library in _LIBRARIES:
        told[f"version/{library}"] = metadata.version(library)
    return told


def _said(value: Any) -> str | int | float | bool:
    if isinstance(value, int | float):
        return value
    return _without_home(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _without_home(text: str) -> str:
    """Return paths relative to where the command runs or to the home, whose name may be a person's."""
    here, home = f"{Path.cwd()}/", str(Path.home())
    return text.replace(here, "").replace(home, "~") if len(home) > 1 else text.replace(here, "")
