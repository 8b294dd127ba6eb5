"""Worker processes that do units side by side and report every line; the death of one ends the others."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import psutil
import torch

from fedperfit.edge.engine.items import PROCESSES_VARIABLE
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.system.allocator import ALLOCATOR
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.system.processes import SAFE_PATH
from fedperfit.simulation.compare.cells import WorkerState, WorkUnit, work
from fedperfit.simulation.compare.settings import CompareSettings

_LEAVE = 10.0
"""Seconds that a worker gets to end on its own."""

_COPIES = 4
"""Copies of the model in one worker at most: its own, OPPU's merged one, and what training takes."""

Needs = Callable[[WorkUnit], list[WorkUnit]]
"""Function that lists the units a unit waits for."""
OnLine = Callable[[WorkUnit, float], None]
"""Callback with a unit and the seconds of the line it has just written."""


def cores() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(settings: CompareSettings) -> int:
    """Choose the number of workers: one per core as far as models fit in memory; one for a GPU.

    Raises:
        InputError: The base model cannot be found.
    """
    card = read_card(settings.base_model)
    if settings.device.startswith("cuda") or (settings.device == "auto" and torch.cuda.is_available()):
        return 1
    room = psutil.virtual_memory().total // (_COPIES * torch.float32.itemsize * card.parameters)
    return max(1, min(cores(), int(room)))


def do_units(
    folder: Path,
    settings: CompareSettings,
    units: Sequence[WorkUnit],
    needs: Needs,
    processes: int,
    on_line: OnLine,
) -> None:
    """Do all `units`, each after those it needs; a single process is this one.

    Args:
        folder: Folder of the comparison.
        settings: Settings of the comparison.
        units: Units with anything left to do.
        needs: Returns the units that a unit waits for.
        processes: Number of processes.
        on_line: Called after every line.

    Raises:
        InputError: A unit fails for wrong input; lines of other units stay.
        RunFailed: A unit fails otherwise, or its process dies.
    """
    if processes == 1:
        _do_in_turn(WorkerState(folder, settings), units, needs, on_line)
        return
    with _started(folder, settings, processes) as workers:
        _do_side_by_side(workers, units, needs, on_line)


def _do_in_turn(state: WorkerState, units: Sequence[WorkUnit], needs: Needs, on_line: OnLine) -> None:
    left = list(units)
    while left:
        unit = left.pop(next(n for n, unit in enumerate(left) if not set(needs(unit)) & set(left)))
        work(state, unit, lambda seconds, unit=unit: on_line(unit, seconds))  # type: ignore[misc]


def _do_side_by_side(
    workers: Mapping[Connection, SpawnProcess], units: Sequence[WorkUnit], needs: Needs, on_line: OnLine
) -> None:
    left = list(units)
    busy: dict[Connection, WorkUnit] = {}
    while left or busy:
        for worker in workers:
            unfinished = {*left, *busy.values()}
            ready = next((unit for unit in left if not set(needs(unit)) & unfinished), None)
            if ready is not None and worker not in busy:
                left.remove(ready)
                busy[worker] = ready
                worker.send(ready)
        for worker in [each for each in wait([*busy]) if isinstance(each, Connection)]:
            unit = busy[worker]
            try:
                report, content = worker.recv()
            except EOFError:
                workers[worker].join(_LEAVE)
                code = workers[worker].exitcode
                raise RunFailed(f"{unit}: its process ended with {code}; --resume continues") from None
            if report == "line":
                on_line(unit, content)
            elif report == "done":
                del busy[worker]
            else:
                raise (InputError if report == "input" else RunFailed)(f"{unit}: {content}")


@contextmanager
def _started(folder: Path, settings: CompareSettings, count: int) -> Iterator[dict[Connection, SpawnProcess]]:
    """Start the worker processes and yield them by their connections; they end with the block."""
    spawn = multiprocessing.get_context("spawn")
    before = dict(os.environ)
    os.environ |= (
        ALLOCATOR
        | SAFE_PATH
        | {
            PROCESSES_VARIABLE: str(count),
            "OMP_NUM_THREADS": str(max(1, cores() // count)),
            "GOMP_SPINCOUNT": "1000",
        }
    )
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for _ in range(count):
            worker, its_end = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(its_end, folder, settings), daemon=True)
            process.start()
            its_end.close()
            workers[worker] = process
        yield workers
        for worker, process in workers.items():
            worker.close()  # the worker ends when it sees that
            process.join(_LEAVE)
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ |= before
        for worker, process in workers.items():
            worker.close()
            process.terminate()
        for process in workers.values():
            process.join()


def _serve(parent: Connection, folder: Path, settings: CompareSettings) -> None:
    """Do the units that arrive until the connection is closed."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    state = WorkerState(folder, settings)

    def tell(*report: Any) -> None:
        try:
            parent.send(report)
        except OSError:
            os._exit(1)  # the parent is gone: nothing more is to be written

    while True:
        try:
            unit = parent.recv()
        except EOFError:
            return
        try:
            work(state, unit, lambda seconds: tell("line", seconds))
        except InputError as error:
            tell("input", str(error))
        except Exception as error:  # one line for the parent, which ends us
            tell("error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        else:
            tell("done", None)
