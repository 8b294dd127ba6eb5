"""One comparison in its folder: what is left of it is planned, done, and turned into results."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fedperfit.edge.chameleon.encoder import sentence_encoder
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, sweep, write_atomic, write_json
from fedperfit.protocol.tasks import task_by_name
from fedperfit.simulation.compare.cells import COLLECTIVE, HISTORY, MAIN, SEARCH, Lot, Workshop
from fedperfit.simulation.compare.method import lineage
from fedperfit.simulation.compare.page import write_page
from fedperfit.simulation.compare.results import rows_of, write_results
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.compare.workers import default_workers, do_lots
from fedperfit.simulation.world.build import WORLD

SETTINGS = "settings.json"
LOCK = ".lock"


class Progress:
    """How much is done and left, and how long that will take; shown by `on_change`."""

    def __init__(self, left: dict[Lot, int], workers: int, on_change: Callable[["Progress"], None]) -> None:
        self.left, self.workers, self._on_change = dict(left), workers, on_change
        self.total = sum(left.values())
        self.done = 0
        self.last = ""
        self.begun = time.monotonic()
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(list)

    def line(self, lot: Lot, seconds: float) -> None:
        """A draw or cell of `lot` is on file."""
        self.left[lot] -= 1
        self.done += 1
        self.last = str(lot)
        self._seconds[lot.method, lot.kind].append(seconds)
        self._on_change(self)

    @property
    def seconds_left(self) -> float | None:
        """From each method's own pace where it is known, else from the mean of all; None at first."""
        known = {key: sum(times) / len(times) for key, times in self._seconds.items()}
        if not known:
            return None
        typical = sum(known.values()) / len(known)
        needed = sum(count * known.get((lot.method, lot.kind), typical) for lot, count in self.left.items())
        return needed / self.workers


def plan(shop: Workshop) -> list[Lot]:
    """All lots of a comparison: searches first, then scores, then cold start, task by task."""
    settings, lots = shop.settings, []
    for task in settings.tasks:
        rows = rows_of(shop, task_by_name(task))
        if not rows:
            raise InputError(f"{task}: none of the methods {', '.join(settings.methods)} suits it")
        chains = [lineage(shop.methods, name) for name in rows]
        searched = dict.fromkeys(
            link for chain in sorted(chains, key=len) for link in chain if shop.methods[link].space
        )
        lots += [Lot(task, name, SEARCH, 0) for name in searched]
        lots += [Lot(task, name, MAIN, seed) for seed in settings.seeds for name in rows]
        first = settings.seeds[0]
        sound = [name for name in rows if not shop.methods[name].sees_targets_before]
        if settings.history_lengths:
            lots += [Lot(task, name, HISTORY, first) for name in sound]
        if settings.collective_sizes:
            lots += [Lot(task, name, COLLECTIVE, first) for name in sound if shop.methods[name].collective]
    return lots


def needs(shop: Workshop, lot: Lot) -> list[Lot]:
    """The searches a lot waits for."""
    chain = lineage(shop.methods, lot.method)
    links = chain[:-1] if lot.kind == SEARCH else chain
    return [Lot(lot.task, link, SEARCH, 0) for link in links if shop.methods[link].space]


def run_comparison(
    folder: Path, workers: int, on_start: Callable[[Progress], None], on_change: Callable[[Progress], None]
) -> dict[str, Any]:
    """Run or resume the comparison of `folder`; returns its metrics. workers: 0 takes `default_workers`.

    Raises InputError when another process is at work there, RunFailed when a worker dies.
    """
    settings = CompareSettings.from_flat(read_json(folder / SETTINGS))
    try:
        with FileLock(folder / LOCK, timeout=0.2):
            shop = Workshop(folder, settings)
            for made in (folder / "made").glob("*"):
                sweep(made)
            left = {lot: len(shop.left(lot)) for lot in plan(shop)}
            lots = [lot for lot, count in left.items() if count]
            workers = workers or default_workers(settings)
            progress = Progress(left, max(1, min(workers, len(lots))), on_change)
            on_start(progress)
            do_lots(folder, settings, lots, lambda lot: needs(shop, lot), progress.workers, progress.line)
            return conclude(folder)
    except Timeout:
        raise InputError(f"{folder}: another process is running this comparison") from None


def conclude(folder: Path) -> dict[str, Any]:
    """Write every result file from what is there; returns the metrics."""
    shop = Workshop(folder, CompareSettings.from_flat(read_json(folder / SETTINGS)))
    summary = write_results(shop)
    write_page(folder, summary, shop.settings)
    return summary


def begin(folder: Path, settings: CompareSettings) -> None:
    """Make the folder of a new comparison, with the search logs of another where the settings name one.

    Raises InputError when it is not empty, that other one searched by other rules or nothing to the point, or
    the encoder is none.
    """
    if folder.is_dir() and any(path.name != WORLD for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty: --resume goes on with a comparison, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    shop = Workshop(folder, settings)
    _check_methods(shop)
    for task in settings.tasks:
        people = shop.cast(task)
        people.validation(settings.validation_users, settings.validation_questions)
    if settings.encoder:
        sentence_encoder(settings.encoder, "cpu")
    if settings.values_of:
        _take_values(shop, Path(settings.values_of))
    write_json(folder / SETTINGS, settings.to_flat())


def extend(folder: Path, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Add rows and seeds to a comparison; what is there stays, for no cell depends on another's row.

    Raises InputError for a method there is not.
    """
    settings = CompareSettings.from_flat(read_json(folder / SETTINGS))
    more = replace(
        settings,
        methods=list(dict.fromkeys([*settings.methods, *methods])),
        seeds=list(dict.fromkeys([*settings.seeds, *seeds])),
    )
    _check_methods(Workshop(folder, more))
    write_json(folder / SETTINGS, more.to_flat())


def _take_values(shop: Workshop, source: Path) -> None:
    """Copy the finished searches of another comparison; what it has not searched will be searched here."""
    if not (source / SETTINGS).is_file():
        raise InputError(f"{source}: no comparison")
    theirs, ours = CompareSettings.from_flat(read_json(source / SETTINGS)), shop.settings
    for name in ("base_model", "data", "draws", "prompt_form", "encoder"):
        if getattr(theirs, name) != getattr(ours, name):
            raise InputError(f"{source}: its {name.replace('_', '-')} is {getattr(theirs, name)!r}")
    there = Workshop(source, theirs)
    taken = [lot for lot in plan(shop) if lot.kind == SEARCH and not there.left(lot)]
    if not taken:
        raise InputError(f"{source}: has finished no search that is wanted here")
    for lot in taken:
        write_atomic(shop.folder / lot.file, (source / lot.file).read_bytes())


def _check_methods(shop: Workshop) -> None:
    unknown = [name for name in shop.settings.methods if name not in shop.methods]
    if unknown:
        raise InputError(f"unknown method {unknown[0]!r}: expected some of {', '.join(shop.methods)}")
