"""The whole job of a run folder over any grid: study, figures, report, with every event on file."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from flwr.serverapp import Grid

from protocol.errors import InputError
from protocol.files import read_json
from simulation.clients import prepare_clients
from simulation.cohort_grid import CohortGrid
from simulation.environment import keep_freed_memory
from simulation.metrics import write_metrics
from simulation.report import write_report
from simulation.settings import SETTINGS, RunSettings
from simulation.study import EVENTS, Study

logger = logging.getLogger("fedperfit.simulation")

OnEvent = Callable[[dict[str, Any]], None]
LOCK = ".lock"
"""In the run folder: held while a process works on it."""


def do_job(grid: Grid, settings: RunSettings, folder: Path, on_event: OnEvent) -> None:
    """Run or resume the study of `folder`, then write metrics.json and report.html.

    on_event gets every event after it is appended to the folder's events.
    """

    def progress(event: str, values: dict[str, Any]) -> None:
        entry = {"event": event, "time": time.time(), **values}
        with (folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        on_event(entry)

    progress("start", {"run": str(folder)})
    Study(grid, settings, folder, progress).run()
    write_metrics(folder)
    report = write_report(folder)
    progress("done", {"report": str(report)})


def run_in_process(folder: Path, on_event: OnEvent) -> None:
    """Run or resume the study of `folder` here, its clients side by side.

    Raises InputError when another process is running this folder.
    """
    keep_freed_memory()
    settings = RunSettings.from_flat(read_json(folder / SETTINGS))
    try:
        with FileLock(folder / LOCK, timeout=0.2):
            grid = CohortGrid(folder, len(prepare_clients(settings, folder)))
            do_job(grid, settings, folder, on_event)
    except Timeout:
        raise InputError(f"{folder}: another process is running this run") from None
