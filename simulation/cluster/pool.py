"""Units of work on workers: this process, or those of a cluster, where a unit survives its worker's death."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from fedperfit.edge.engine.items import PROCESSES_VARIABLE
from fedperfit.protocol.system.allocator import keep_freed_memory
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.simulation.cluster.cluster import ClusterRequest, Placement, cluster, cores
from fedperfit.simulation.cluster.head import check_head
from fedperfit.simulation.cluster.scratch import WORKER, scratch_folder
from fedperfit.simulation.optional import required

logger = logging.getLogger("fedperfit.simulation")

Unit = TypeVar("Unit", bound=Hashable)

_PATIENCE_SECONDS = 60.0
"""Wait for the first process on a cluster after which the user is told what it waits for."""
_LONGEST_CAUSE = 300
"""Characters of what Ray says of a worker's death that are told."""
_MOST_DEATHS = 3
"""Number of workers that may die over one unit before the run is given up."""


class Doer(Protocol):
    """Whoever does a worker's units; it is made once in each worker, and may load a model."""

    def do(self, payload: Any) -> Iterator[Any]:
        """Do one unit, and yield its results part by part as they are ready.

        Args:
            payload: What the unit is done from.
        """


Make = Callable[[Path], Doer]
"""Function that makes a worker's doer, given a folder for its files."""
Needs = Callable[[Unit], Sequence[Unit]]
"""Function that lists the units a unit waits for."""
Makes = Callable[[Unit], Hashable]
"""Function that names what a unit makes; by default nothing that another makes too."""


class _Worker:
    """Actor: a process on the cluster that does units one after the other."""

    def __init__(self, placed: Placement, make: Make) -> None:
        self._make = make
        self._doer: Doer | None = None
        keep_freed_memory()
        torch.set_num_threads(max(1, int(placed.cpus)))
        beside = max(1, int(cores() / placed.cpus))
        os.environ[PROCESSES_VARIABLE] = str(min(placed.workers, beside))

    def ready(self) -> None:
        """Answer as soon as this process is there and has done what it was given before."""

    def do(self, payload: Any) -> Iterator[tuple[str, Any]]:
        """Yield ("part", part) for each part of the unit; then ("done", None), or what was wrong."""
        try:
            if self._doer is None:
                self._doer = self._make(scratch_folder(WORKER))
            for part in self._doer.do(payload):
                yield "part", part
        except InputError as error:
            yield "input", str(error)
        except Exception as error:  # one line for the process that gave the unit
            yield "error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        else:
            yield "done", None


class Here(Generic[Unit]):
    """One worker, which is this process."""

    def __init__(self, make: Make, folder: Path) -> None:
        """Make the doer.

        Args:
            make: Makes it.
            folder: Folder for its files.
        """
        self._doer = make(folder)

    def __len__(self) -> int:
        """Count the workers: one."""
        return 1

    def work(
        self,
        units: Sequence[Unit],
        payload: Callable[[Unit], Any],
        *,
        needs: Needs[Unit] = lambda unit: (),
        makes: Makes[Unit] = lambda unit: unit,
    ) -> Iterator[tuple[Unit, Any]]:
        """Do the units, and yield each unit with each part of its result as it comes.

        Args:
            units: Units, done in this order as far as what they need allows.
            payload: Makes what a unit is done from, when its turn comes.
            needs: Returns the units that a unit waits for.
            makes: Of no use to a single worker, which makes everything once.
        """
        left = list(units)
        while left:
            unit = left.pop(next(n for n, unit in enumerate(left) if not set(needs(unit)) & set(left)))
            for part in self._doer.do(payload(unit)):
                yield unit, part


class Pool(Generic[Unit]):
    """Workers on a cluster that this process is connected to.

    A worker that dies, or whose node does, is replaced; until the new one has room and is there, the
    others do its units. Nodes that join later are used as soon as they hold a worker.
    """

    def __init__(self, placed: Placement, make: Make) -> None:
        """Ask the cluster for the workers; the first units go to those that come first.

        Args:
            placed: Number and resources of the workers.
            make: Makes a worker's doer; it travels to the worker pickled.
        """
        self._ray = required("ray")
        self._start: Callable[[], Any] = lambda: (
            self._ray.remote(_Worker).options(num_cpus=placed.cpus, num_gpus=placed.gpus).remote(placed, make)
        )
        self._workers = [self._start() for _ in range(placed.workers)]
        self._busy: dict[Any, tuple[int, Unit]] = {}
        """Streams of results, with the worker and the unit of each."""
        self._idle: set[int] = set()
        self._starting: dict[Any, int] = {}
        """What each worker answers, once free, that is not there yet or does what is no longer wanted."""
        self._absent: set[int] = set()
        """Workers that were started and have never answered."""
        self._stillborn = 0
        self._cpus, self._told = placed.cpus, False
        self._turn: object = None
        for worker in range(placed.workers):
            self._await_start(worker)

    def __len__(self) -> int:
        """Count the workers, those that have no room yet included."""
        return len(self._workers)

    def work(
        self,
        units: Sequence[Unit],
        payload: Callable[[Unit], Any],
        *,
        needs: Needs[Unit] = lambda unit: (),
        makes: Makes[Unit] = lambda unit: unit,
        home: Callable[[Unit], int | None] = lambda unit: None,
    ) -> Iterator[tuple[Unit, Any]]:
        """Do the units, and yield each unit with each part of its result as it comes.

        A unit whose worker dies is given to another with a new payload; parts that came before may come
        again. Where this is called again before all units are done, the rest of them is dropped.

        Args:
            units: Units, in the order in which they are given out.
            payload: Makes what a unit is done from, when it is given out.
            needs: Returns the units that a unit waits for.
            makes: Returns what a unit makes that others take from it. Two that make the same are done side by
                side only where nothing else can be done.
            home: Returns the worker that a unit is meant for. Another takes it only while that one is not
                there, and only when it has none of its own to do.

        Raises:
            InputError: A unit fails for wrong input.
            RunFailed: A unit fails otherwise, or workers die over it again and again.
        """
        self._turn = turn = object()
        for worker, _ in self._busy.values():
            self._await(worker)
        self._busy.clear()
        left, deaths = list(units), Counter[Unit]()
        while self._turn is turn and (left or self._busy):
            self._give_out(left, payload, needs, makes, home)
            first = self._first_answer()
            if first in self._starting:
                continue  # it is welcomed with all others that have come
            unit = self._busy[first][1]
            report, content = self._next(first)
            if report == "died":
                deaths[unit] += 1
                if deaths[unit] == _MOST_DEATHS:
                    died = f"{_MOST_DEATHS} processes died over it{content}"
                    raise RunFailed(f"{unit}: {died}; --resume continues")
                left.insert(0, unit)
            elif report == "part":
                yield unit, content
            elif report != "done":
                raise (InputError if report == "input" else RunFailed)(f"{unit}: {content}")

    def _first_answer(self) -> Any:
        """Wait for the first answer of any worker; while none has begun, say once what it waits for."""
        answers = [*self._starting, *self._busy]
        patience = None if self._busy or self._told else _PATIENCE_SECONDS
        there, _ = self._ray.wait(answers, num_returns=1, timeout=patience)
        if not there:
            self._told = True
            free, cpus = (
                get().get("CPU", 0) for get in (self._ray.available_resources, self._ray.cluster_resources)
            )
            logger.warning(
                "no process on the cluster has begun yet: %g of its %g CPUs are free, and each takes %g; "
                "waiting for room",
                *(free, cpus, self._cpus),
            )
            there, _ = self._ray.wait(answers, num_returns=1)
        return there[0]

    def _give_out(
        self,
        left: list[Unit],
        payload: Callable[[Unit], Any],
        needs: Needs[Unit],
        makes: Makes[Unit],
        home: Callable[[Unit], int | None],
    ) -> None:
        """Give each free worker the first unit that it may do."""
        if self._starting:
            for answer in self._ray.wait([*self._starting], num_returns=len(self._starting), timeout=0)[0]:
                self._welcome(answer)
        for worker in sorted(self._idle):
            unfinished = {*left, *(unit for _, unit in self._busy.values())}
            ready = [unit for unit in left if not unfinished.intersection(needs(unit))]
            made_now = {makes(unit) for _, unit in self._busy.values()}
            ready.sort(key=lambda unit: makes(unit) in made_now)
            own = (unit for unit in ready if home(unit) in (None, worker))
            orphaned = (unit for unit in ready if home(unit) in self._absent)
            unit = next(chain(own, orphaned), None)
            if unit is not None:
                left.remove(unit)
                self._idle.remove(worker)
                doing = self._workers[worker].do.options(num_returns="streaming")
                self._busy[doing.remote(payload(unit))] = worker, unit

    def _next(self, stream: Any) -> tuple[str, Any]:
        """Return the next report of a stream: that of the worker, or that the worker died."""
        worker, _ = self._busy[stream]
        try:
            report, content = self._ray.get(next(stream))
        except (self._ray.exceptions.RayError, StopIteration) as error:
            del self._busy[stream]
            self._replace(worker)
            return "died", _cause(error)
        if report != "part":
            del self._busy[stream]
            self._idle.add(worker)
        return report, content

    def _await_start(self, worker: int) -> None:
        """Count a worker as absent until it answers for the first time."""
        self._absent.add(worker)
        self._await(worker)

    def _await(self, worker: int) -> None:
        """Count a worker as starting until it answers; what it does before that goes unheard."""
        self._starting[self._workers[worker].ready.remote()] = worker

    def _welcome(self, answer: Any) -> None:
        """Take a worker that was starting as free, or replace one that died before it was."""
        worker = self._starting.pop(answer)
        try:
            self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            self._stillborn += 1
            if self._stillborn > _MOST_DEATHS * len(self._workers):
                why = " ".join(str(error).split())[-300:]
                raise RunFailed(f"processes on the cluster end before they begin: {why}") from None
            self._replace(worker)
        else:
            self._stillborn = 0
            self._absent.discard(worker)
            self._idle.add(worker)

    def _replace(self, worker: int) -> None:
        check_head(self._ray.get_runtime_context().gcs_address)
        self._ray.kill(self._workers[worker])
        self._workers[worker] = self._start()
        self._await_start(worker)


def _cause(error: Exception) -> str:
    """Return what Ray says of a worker's death, to be added to a sentence; empty where it says nothing."""
    said = " ".join(str(error).split())
    detail = said.rpartition("exit detail: ")[2][:_LONGEST_CAUSE]
    return f" ({detail})" if detail else ""


@contextmanager
def workers(request: ClusterRequest | None, make: Make, folder: Path) -> Iterator[Here[Any] | Pool[Any]]:
    """Yield workers for the length of the block.

    Args:
        request: Workers on a cluster that are wanted; None is this process, and nothing is started.
        make: Makes a worker's doer.
        folder: Folder for the files of this process where it is the worker.

    Raises:
        InputError: The cluster cannot be used.
    """
    if request is None:
        yield Here(make, folder)
        return
    with cluster(request) as placed:
        yield Pool(placed, make)
