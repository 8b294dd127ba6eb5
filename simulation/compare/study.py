"""Life of a comparison in its folder: begun, planned, run, resumed, extended, and concluded."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fedperfit.cloud.job.events import OnEvent, recording
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.edge.chameleon.encoder import sentence_encoder
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.settings.names import key_of
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import sweep, write_atomic, write_json
from fedperfit.protocol.tasks import task_by_name, task_id
from fedperfit.simulation.cluster.cluster import ClusterRequest
from fedperfit.simulation.cluster.pace import Pace
from fedperfit.simulation.cluster.pool import workers as workers_on
from fedperfit.simulation.compare.cells import COLLECTIVE, HISTORY, MAIN, SEARCH, WorkerState, WorkUnit
from fedperfit.simulation.compare.method import lineage
from fedperfit.simulation.compare.page import REPORT, write_page
from fedperfit.simulation.compare.results import final_figures, rows_of, write_results
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.compare.workers import FAILED, default_workers, do_pieces, maker, pieces
from fedperfit.simulation.study_folder import LOCK, check_new
from fedperfit.simulation.world.build import WORLD, outdate_world


class Progress:
    """Draws and cells of a comparison, done and left."""

    def __init__(self, left: Mapping[WorkUnit, int], workers: int) -> None:
        """Start to count.

        Args:
            left: Draws and cells that are left, by unit.
            workers: Processes at work.
        """
        self.total = sum(left.values())
        """Draws and cells that were left at the start."""
        self._begun: set[WorkUnit] = set()
        kinds = [_kind(unit, first=not number) for unit, count in left.items() for number in range(count)]
        self._pace = Pace(kinds, workers)

    def line(self, unit: WorkUnit, seconds: float) -> dict[str, Any]:
        """Count a draw or cell that is now on file, and return the fields of its event.

        Args:
            unit: Unit that wrote the line.
            seconds: Seconds it took.
        """
        kind = _kind(unit, first=unit not in self._begun)
        self._begun.add(unit)
        return {"last": str(unit), **self._pace.took(kind, seconds)}


def _kind(unit: WorkUnit, *, first: bool) -> tuple[str, str, bool]:
    """Return what draws or cells that take about as long have in common, whatever the task and seed.

    With the first cell of a unit its method learns from the others, with each draw of a search anew.
    """
    return unit.method, unit.kind, first or unit.kind == SEARCH


def plan(state: WorkerState) -> list[WorkUnit]:
    """List all units of a comparison task by task: searches first, then scores, then cold start.

    Raises:
        InputError: No method suits one of the tasks, or a method builds on one that does not exist.
    """
    settings, units = state.settings, []
    for task in map(task_id, settings.tasks):
        rows = rows_of(state, task_by_name(task))
        if not rows:
            raise InputError(f"{task}: none of the methods {', '.join(settings.methods)} suits it")
        chains = [lineage(state.methods, name) for name in rows]
        searched = dict.fromkeys(
            link for chain in sorted(chains, key=len) for link in chain if state.methods[link].space
        )
        units += [WorkUnit(task, name, SEARCH, 0) for name in searched]
        units += [WorkUnit(task, name, MAIN, seed) for seed in settings.seeds for name in rows]
        first = settings.seeds[0]
        sound = [name for name in rows if not state.methods[name].sees_targets_before]
        if settings.history_lengths:
            units += [WorkUnit(task, name, HISTORY, first) for name in sound]
        if settings.collective_sizes:
            units += [
                WorkUnit(task, name, COLLECTIVE, first) for name in sound if state.methods[name].collective
            ]
    return units


def needs(state: WorkerState, unit: WorkUnit) -> list[WorkUnit]:
    """List the searches that a unit waits for.

    Args:
        state: State of this process.
        unit: The unit.
    """
    chain = lineage(state.methods, unit.method)
    links = chain[:-1] if unit.kind == SEARCH else chain
    return [WorkUnit(unit.task, link, SEARCH, 0) for link in links if state.methods[link].space]


def run_comparison(
    folder: Path, workers: int, on_event: OnEvent, where: ClusterRequest | None = None
) -> dict[str, Any]:
    """Run or resume the comparison of `folder`.

    Args:
        folder: Folder of the comparison, with its settings.
        workers: Processes side by side, at most as many as there are pieces of work; 0 takes
            `default_workers`. A single one is this process.
        on_event: Called with every event after it is appended to the folder's events.
        where: Cluster that the workers are placed on, as many as it has room for if `workers` is 0; by
            default one is started here for several.

    Returns:
        The metrics, as in metrics.json; `failed` holds a line for each method that has no row for it.

    Raises:
        InputError: Another process works on this comparison.
        RunFailed: Worker processes died over a unit again and again.
    """
    settings = CompareSettings.from_file(folder / SETTINGS)
    try:
        with FileLock(folder / LOCK, timeout=0.2), recording(folder, on_event) as record:
            state = WorkerState(folder, settings)
            for made in (folder / "made").glob("*"):
                sweep(made)
            shutil.rmtree(folder / FAILED, ignore_errors=True)
            left = {unit: len(state.left(unit)) for unit in plan(state)}
            work = pieces(state, [unit for unit, count in left.items() if count])
            request = _request(workers, len(work), settings, where)
            with workers_on(request, maker(state), folder) as hands:
                progress = Progress(left, len(hands))
                record("start", {"run": str(folder), "total": progress.total, "workers": len(hands)})

                def line(unit: WorkUnit, seconds: float) -> None:
                    record("work", progress.line(unit, seconds))

                do_pieces(state, work, lambda unit: needs(state, unit), hands, line)
            summary = conclude(folder, state.failed)
            record("figures", {"figures": final_figures(summary)})
            record("done", {"report": str(folder / REPORT)})
            return summary
    except Timeout:
        raise InputError(f"{folder}: another process is running this comparison") from None


def _request(
    workers: int, pieces_left: int, settings: CompareSettings, where: ClusterRequest | None
) -> ClusterRequest | None:
    """Return the workers to ask a cluster for; None where this process does the work."""
    if where is not None and where.address:
        return replace(where, workers=workers)
    wanted = min(workers or default_workers(settings), pieces_left)
    return replace(where or ClusterRequest(), workers=wanted) if wanted > 1 else None


def conclude(folder: Path, failed: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """Write every result file from the cells that are on file, and return the metrics.

    Args:
        folder: Folder of the comparison.
        failed: Methods that have no row, by task and name, with what went wrong.
    """
    state = WorkerState(folder, CompareSettings.from_file(folder / SETTINGS))
    state.failed.update(failed)
    summary = write_results(state)
    write_page(folder, summary, state.settings)
    return summary


def begin(folder: Path, settings: CompareSettings) -> None:
    """Make the folder of a new comparison, with the search logs of another where the settings name one.

    Args:
        folder: Folder to make; it may hold the world, as one that was killed here or refused does.
        settings: Settings of the comparison.

    Raises:
        InputError: The folder is not empty, a method is unknown, data is missing or broken, the encoder
            cannot be loaded, the base model lacks the chat template that is wanted, or the other comparison
            was searched by other settings or has nothing that is needed.
    """
    check_new(folder, resumable=True, beside=WORLD)
    read_card(settings.base_model).check_form(settings.prompt_form)
    folder.mkdir(parents=True, exist_ok=True)
    outdate_world(folder, map(task_id, settings.tasks))
    state = WorkerState(folder, settings)
    _check_methods(state)
    for task in map(task_id, settings.tasks):
        people = state.participants(task)
        people.validation(settings.validation_users, settings.validation_questions)
    if settings.encoder:
        sentence_encoder(settings.encoder, "cpu")
    if settings.values_of:
        _take_values(state, Path(settings.values_of))
    write_json(folder / SETTINGS, settings.to_flat())


def extend(folder: Path, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Add rows and seeds to a comparison; finished cells stay, as none depends on another row.

    Args:
        folder: Folder of the comparison.
        methods: Names of methods to add.
        seeds: Seeds to add.

    Raises:
        InputError: A method is unknown.
    """
    settings = CompareSettings.from_file(folder / SETTINGS)
    more = settings.replace(
        methods=list(dict.fromkeys([*settings.methods, *methods])),
        seeds=list(dict.fromkeys([*settings.seeds, *seeds])),
    )
    _check_methods(WorkerState(folder, more))
    write_json(folder / SETTINGS, more.to_flat())


def _take_values(state: WorkerState, source: Path) -> None:
    """Copy the finished searches of another comparison; those that it lacks will be made here."""
    if not (source / SETTINGS).is_file():
        raise InputError(f"{source}: holds no comparison")
    theirs, ours = CompareSettings.from_file(source / SETTINGS), state.settings
    for name in ("base_model", "data", "draws", "prompt_form", "encoder"):
        there, here = getattr(theirs, name), getattr(ours, name)
        if there != here:
            raise InputError(f"{source}: its {key_of(name)} is {there!r}, here it is {here!r}")
    source_state = WorkerState(source, theirs)
    finished = [unit for unit in plan(state) if unit.kind == SEARCH and not source_state.left(unit)]
    if not finished:
        raise InputError(f"{source}: has finished no search that this comparison needs")
    for unit in finished:
        write_atomic(state.folder / unit.file, (source / unit.file).read_bytes())


def _check_methods(state: WorkerState) -> None:
    unknown = [name for name in state.settings.methods if name not in state.methods]
    if unknown:
        raise InputError(f"unknown method {unknown[0]!r}: expected some of {', '.join(state.methods)}")
