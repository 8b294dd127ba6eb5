"""A run folder's whole job over any grid: study, figures, report, with every event on file."""

import logging
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from flwr.serverapp import Grid

from fedperfit.cloud.job.events import OnEvent, recording
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.edge.engine.items import ItemCache
from fedperfit.protocol.system.allocator import keep_freed_memory
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json
from fedperfit.simulation.client_app import CLIENTS
from fedperfit.simulation.cluster.cluster import ClusterRequest
from fedperfit.simulation.cohorts.grid import CohortGrid, Respond
from fedperfit.simulation.cohorts.remote import remote_cohorts
from fedperfit.simulation.run.clients import OTHERS, Roster, prepare_clients
from fedperfit.simulation.run.faults import FaultyGrid
from fedperfit.simulation.run.report import write_report
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.run.study import Study
from fedperfit.simulation.run.summary import METRICS, final_figures, write_metrics
from fedperfit.simulation.stored_models import items_of
from fedperfit.simulation.study_folder import LOCK

logger = logging.getLogger("fedperfit.simulation")


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Keep a run folder to this process for a while.

    Args:
        folder: Folder of the run, which is there.

    Raises:
        InputError: Another process has it.
    """
    lock = FileLock(folder / LOCK, timeout=0.2)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder}: another process is running this run") from None
    try:
        yield
    finally:
        lock.release()


def do_job(grid: Grid, settings: RunSettings, folder: Path, on_event: OnEvent) -> None:
    """Run or resume the study of `folder`, then write metrics.json and report.html.

    Args:
        grid: Connection to the clients.
        settings: Settings of the run.
        folder: Folder of the run.
        on_event: Called with every event after it is appended to the folder's events. What ends it before its
            end is the last of them, `failed`.
    """
    with recording(folder, on_event) as progress:
        progress("start", {"run": str(folder)})
        Study(grid, settings, folder, progress).run()
        write_metrics(folder)
        progress("figures", {"figures": final_figures(read_json(folder / METRICS))})
        report = write_report(folder)
        progress("done", {"report": str(report)})


def _memory(items: ItemCache) -> dict[str, int]:
    """Return this process's peak memory and that of the prepared items, in bytes, with the items' number."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if items.base.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(items.base.device)
    return {"peak": peak, "kept": items.most_bytes, "items": items.most_items}


def _grid(settings: RunSettings, folder: Path, roster: Roster, respond: Respond | None) -> Grid:
    grid = CohortGrid(folder, len(roster), respond)
    if not (settings.dropout or settings.malicious):
        return grid
    groups = [about["group"] for about in roster.values()]
    contributors = {node: n for n, node in enumerate(grid.get_node_ids()) if groups[n] == OTHERS}
    return FaultyGrid(
        grid,
        contributors,
        dropout=settings.dropout,
        malicious=settings.malicious,
        attack=settings.attack,
        seed=settings.seed,
    )


def run_cohorts(folder: Path, on_event: OnEvent, request: ClusterRequest | None = None) -> None:
    """Run or resume the study of `folder`, its clients side by side in cohorts.

    Args:
        folder: Folder of the run, with its settings.
        on_event: Called with every event.
        request: Workers on a cluster, one for each cohort; None is one cohort in this process.

    Raises:
        InputError: Another process is running this folder, or the cluster cannot be used.
    """
    keep_freed_memory()
    settings = RunSettings.from_file(folder / SETTINGS)
    with at_work(folder):
        roster = prepare_clients(settings, folder)
        if request is None:
            items_of(folder / CLIENTS)  # what is wrong with the model is told once, and not by each client
        cohorts = nullcontext() if request is None else remote_cohorts(folder, len(roster), request)
        with cohorts as respond:
            do_job(_grid(settings, folder, roster, respond), settings, folder, on_event)
        if request is None:
            on_event({"event": "memory", **_memory(items_of(folder / CLIENTS))})
