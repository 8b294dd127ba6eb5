"""Units of a comparison on workers: what each is given and brings back, and how many there are by default."""

import json
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.system.files import append_text, write_atomic
from fedperfit.protocol.tasks import task_id
from fedperfit.simulation.cluster.cluster import cores
from fedperfit.simulation.cluster.folders import Files, everywhere, paths_in, write_folder
from fedperfit.simulation.cluster.pool import Here, Make, Needs, Pool
from fedperfit.simulation.cluster.store import Store
from fedperfit.simulation.compare.cells import COLLECTIVE, MADE, MAIN, SEARCH, WorkerState, WorkUnit
from fedperfit.simulation.compare.guarded import MethodFailed
from fedperfit.simulation.compare.method import lineage
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.data.participants import Participants
from fedperfit.simulation.optional import required

_COPIES = 4
"""Copies of the model in one worker at most: its own, OPPU's merged one, and what training takes."""

FAILED = "failed"
"""Folder in the run folder with the calls that led to the failure of each method that failed."""

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
class Piece:
    """What a worker is given at a time: one draw of a search, or all that is left of another unit.

    No draw builds on another, while a method learns from the others once for all cells of a unit.
    """

    unit: WorkUnit
    draw: int | None = None
    """Number of the draw; None where the unit is no search."""

    def __str__(self) -> str:
        return str(self.unit)


def pieces(state: WorkerState, units: Sequence[WorkUnit]) -> list[Piece]:
    """Cut units into what workers are given at a time.

    Args:
        state: State of the process that gives out the work.
        units: Units, in the order in which they are to be done.
    """
    return [
        piece
        for unit in units
        for piece in (
            [Piece(unit, draw) for draw, _ in state.left(unit)] if unit.kind == SEARCH else [Piece(unit)]
        )
    ]


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


@dataclass(frozen=True)
class Failure:
    """What a worker brings back of a unit whose method fails."""

    line: str
    """What went wrong, in one line."""
    trace: str
    """Calls that led to it."""


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

    def do(self, payload: Given) -> Iterator[Line | Failure]:
        """Do what is left of a unit.

        Args:
            payload: The unit and what it builds on.

        Yields:
            A line for each draw or cell as it is done; a failure where the method cannot go on.
        """
        if not payload.left:
            return
        try:
            yield from self._lines(payload)
        except MethodFailed as error:
            yield Failure(str(error), error.trace)

    def _lines(self, payload: Given) -> Iterator[Line]:
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


def do_pieces(
    state: WorkerState,
    work: Sequence[Piece],
    needs: Needs[WorkUnit],
    workers: Here[Piece] | Pool[Piece],
    on_line: OnLine,
) -> None:
    """Do all pieces, each after the units it needs, and put every line on file as it comes.

    What is left of a method that fails, and of those that build on it, is left out.

    Args:
        state: State of this process, which alone writes into the folder of the comparison.
        work: Pieces of units with anything left to do.
        needs: Returns the units that a unit waits for.
        workers: Who does them.
        on_line: Called after every line.

    Raises:
        InputError: A piece fails for wrong input; lines of other pieces stay.
        RunFailed: A piece fails otherwise than by its method, or processes die over it again and again.
    """
    made = state.folder / MADE
    store = None if isinstance(workers, Here) else Store()
    of_unit: dict[WorkUnit, list[Piece]] = {}
    for piece in work:
        of_unit.setdefault(piece.unit, []).append(piece)

    def given(piece: Piece) -> Given:
        if state.is_lost(piece.unit.task, piece.unit.method):
            return Given(piece.unit, [], {}, {})
        paths = paths_in(made) if store else []
        files = {str(path.relative_to(made)): store.reference(path) for path in paths if store}
        left = state.left(piece.unit)
        if piece.draw is not None:
            left = [one for one in left if one[0] == piece.draw]
        return Given(piece.unit, left, state.given(piece.unit), files)

    def needed(piece: Piece) -> list[Piece]:
        return [other for unit in needs(piece.unit) for other in of_unit.get(unit, [])]

    for piece, line in workers.work(work, given, needs=needed, makes=partial(_learned, state)):
        if isinstance(line, Failure):
            _note(state, piece.unit, line)
            continue
        write_folder(made, {name: data for name, data in line.made.items() if not (made / name).exists()})
        path = state.folder / piece.unit.file
        path.parent.mkdir(parents=True, exist_ok=True)
        append_text(path, json.dumps(line.content, ensure_ascii=False) + "\n", durable=True)
        on_line(piece.unit, line.seconds)


def _note(state: WorkerState, unit: WorkUnit, failure: Failure) -> None:
    """Count a method as failed for good, and keep the calls that led to it where its author finds them."""
    about = unit.task, unit.method
    if about not in state.failed:
        state.failed[about] = f"{unit}: {failure.line}"
        trace = failure.trace.encode(errors="backslashreplace")  # which may hold half a character
        write_atomic(state.folder / FAILED / f"{unit.task}-{unit.method}.txt", trace)


def _learned(state: WorkerState, piece: Piece) -> Hashable:
    """Name what a piece learns from the others, which all methods that build on one another share.

    Each draw of a method that builds on no other learns something of its own.
    """
    unit, chain = piece.unit, lineage(state.methods, piece.unit.method)
    if unit.kind == SEARCH and len(chain) == 1:
        return piece
    kind = unit.kind if unit.kind in (SEARCH, COLLECTIVE) else MAIN
    return unit.task, kind, unit.seed, chain[0]
