"""Worker processes that do lots side by side and tell of every line; a death ends the others."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import psutil
import torch

from fedperfit.edge.engine.allocator import ALLOCATOR
from fedperfit.edge.engine.items import PROCESSES_VARIABLE
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.simulation.compare.cells import Lot, Workshop, work
from fedperfit.simulation.compare.settings import CompareSettings

_LEAVE = 10.0
"""Seconds a worker gets to end of its own."""

_COPIES = 4
"""Of the model in one worker at most: its own, OPPU's merged one, and what training takes."""

OnLine = Callable[[Lot, float], None]
"""Called with a lot and the seconds of its line that was just written."""


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(settings: CompareSettings) -> int:
    """One per core, as far as the models fit in memory; one where a GPU does the work.

    Raises InputError when the base model cannot be found.
    """
    card = read_card(settings.base_model)
    if settings.device.startswith("cuda") or (settings.device == "auto" and torch.cuda.is_available()):
        return 1
    room = psutil.virtual_memory().total // (_COPIES * torch.float32.itemsize * card.parameters)
    return max(1, min(cores(), int(room)))


def do_lots(
    folder: Path,
    settings: CompareSettings,
    lots: Sequence[Lot],
    needs: Callable[[Lot], list[Lot]],
    workers: int,
    on_line: OnLine,
) -> None:
    """Do all `lots`, each after those it `needs`; with one worker in this process.

    Raises InputError or RunFailed of the first lot that fails; the others' lines stay.
    """
    left = list(lots)
    if workers == 1:
        shop = Workshop(folder, settings)
        while left:
            lot = left.pop(next(n for n, lot in enumerate(left) if not set(needs(lot)) & set(left)))
            work(shop, lot, lambda seconds, lot=lot: on_line(lot, seconds))  # type: ignore[misc]
        return
    with _crew(folder, settings, workers) as crew:
        busy: dict[Connection, Lot] = {}
        while left or busy:
            for line in crew:
                unfinished = {*left, *busy.values()}
                ready = next((lot for lot in left if not set(needs(lot)) & unfinished), None)
                if ready is not None and line not in busy:
                    left.remove(ready)
                    busy[line] = ready
                    line.send(ready)
            for line in [line for line in wait([*busy]) if isinstance(line, Connection)]:
                lot = busy[line]
                try:
                    said, about = line.recv()
                except EOFError:
                    crew[line].join(_LEAVE)
                    code = crew[line].exitcode
                    raise RunFailed(f"{lot}: its process ended with {code}; --resume goes on") from None
                if said == "line":
                    on_line(lot, about)
                elif said == "done":
                    del busy[line]
                else:
                    raise (InputError if said == "input" else RunFailed)(f"{lot}: {about}")


@contextmanager
def _crew(folder: Path, settings: CompareSettings, workers: int) -> Iterator[dict[Connection, SpawnProcess]]:
    """Started processes by their lines; ended when the block ends, however it does."""
    spawn = multiprocessing.get_context("spawn")
    before = dict(os.environ)
    os.environ |= ALLOCATOR | {
        PROCESSES_VARIABLE: str(workers),
        "OMP_NUM_THREADS": str(max(1, cores() // workers)),
        "GOMP_SPINCOUNT": "1000",
    }
    crew: dict[Connection, SpawnProcess] = {}
    try:
        for _ in range(workers):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(theirs, folder, settings), daemon=True)
            process.start()
            theirs.close()
            crew[ours] = process
        yield crew
        for line, process in crew.items():
            line.close()  # the worker ends when it sees that
            process.join(_LEAVE)
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ |= before
        for line, process in crew.items():
            line.close()
            process.terminate()
        for process in crew.values():
            process.join()


def _serve(line: Connection, folder: Path, settings: CompareSettings) -> None:
    """A worker: does the lots it is sent until the line is closed."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    shop = Workshop(folder, settings)

    def tell(*what: Any) -> None:
        try:
            line.send(what)
        except OSError:
            os._exit(1)  # the parent is gone: nothing more is to be written

    while True:
        try:
            lot = line.recv()
        except EOFError:
            return
        try:
            work(shop, lot, lambda seconds: tell("line", seconds))
        except InputError as error:
            tell("input", str(error))
        except Exception as error:  # told in one line; the parent ends us
            tell("error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        else:
            tell("done", None)
