"""Units of a comparison on workers: what each is given and brings back, and how many there are by default."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.tasks import task_id
from fedperfit.simulation.cluster.cluster import cores
from fedperfit.simulation.cluster.folders import Files, everywhere, paths_in, write_folder
from fedperfit.simulation.cluster.pool import Here, Make, Needs, Pool
from fedperfit.simulation.cluster.store import Store
from fedperfit.simulation.compare.cells import MADE, WorkerState, WorkUnit
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.data.participants import Participants
from fedperfit.simulation.optional import required

_COPIES = 4
"""Copies of the model in one worker at most: its own, OPPU's merged one, and what training takes."""

OnLine = Callable[[WorkUnit, float], None]
"""Callback with a unit and the seconds of the line that is now on file."""


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


@dataclass(frozen=True)
class Given:
    """What a unit is done from."""

    unit: WorkUnit
    left: Sequence[Any]
    """Draws or cells that are not on file."""
    values: Mapping[str, Any]
    """Values of hyper-parameters that were chosen before."""
    made: Mapping[str, Any]
    """References to what was made once and for all, by its path among such files; none for this process."""


@dataclass(frozen=True)
class Line:
    """Result of one draw or cell."""

    content: Mapping[str, Any]
    seconds: float
    """Time that the draw or cell took."""
    made: Files
    """What was made on the way, and is used again."""


class ComparisonWorker:
    """Worker of a comparison, with its methods, participants and base model."""

    def __init__(self, settings: CompareSettings, people: Mapping[str, Participants], folder: Path) -> None:
        """Find the methods; the model is loaded for the first unit.

        Args:
            settings: Settings of the comparison.
            people: Participants by task.
            folder: Folder of this worker's files.
        """
        self._state, self._made = WorkerState(folder, settings, people), folder / MADE

    def do(self, payload: Given) -> Iterator[Line]:
        """Do what is left of a unit.

        Args:
            payload: The unit and what it builds on.

        Yields:
            A line for each draw or cell as it is done.
        """
        lacking = {name: ref for name, ref in payload.made.items() if not (self._made / name).exists()}
        if lacking:
            contents = required("ray").get([*lacking.values()])
            write_folder(self._made, dict(zip(lacking, contents, strict=True)))
        known = set(paths_in(self._made))
        started = time.perf_counter()
        for content in self._state.do(payload.unit, payload.left, payload.values):
            seconds = time.perf_counter() - started
            new = [path for path in paths_in(self._made) if path not in known]
            known.update(new)
            yield Line(content, seconds, {str(p.relative_to(self._made)): p.read_bytes() for p in new})
            started = time.perf_counter()


def maker(state: WorkerState) -> Make:
    """Return what makes the workers of a comparison, wherever they are.

    Args:
        state: State of the process that gives out the work.
    """
    people = {task: state.participants(task) for task in map(task_id, state.settings.tasks)}
    return partial(ComparisonWorker, everywhere(state.settings), people)


def do_units(
    state: WorkerState,
    units: Sequence[WorkUnit],
    needs: Needs[WorkUnit],
    workers: Here[WorkUnit] | Pool[WorkUnit],
    on_line: OnLine,
) -> None:
    """Do all units, each after those it needs, and put every line on file as it comes.

    Args:
        state: State of this process, which alone writes into the folder of the comparison.
        units: Units with anything left to do.
        needs: Returns the units that a unit waits for.
        workers: Who does them.
        on_line: Called after every line.

    Raises:
        InputError: A unit fails for wrong input; lines of other units stay.
        RunFailed: A unit fails otherwise, or processes die over it again and again.
    """
    made = state.folder / MADE
    store = None if isinstance(workers, Here) else Store()

    def given(unit: WorkUnit) -> Given:
        paths = paths_in(made) if store else []
        files = {str(path.relative_to(made)): store.reference(path) for path in paths if store}
        return Given(unit, state.left(unit), state.given(unit), files)

    for unit, line in workers.work(units, given, needs=needs):
        write_folder(made, {name: data for name, data in line.made.items() if not (made / name).exists()})
        path = state.folder / unit.file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line.content, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        on_line(unit, line.seconds)
