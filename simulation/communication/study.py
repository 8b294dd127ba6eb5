"""Life of a study in its folder: begun, run, resumed, extended, and concluded.

settings.json                       what is compared
units/TASK/ROW/draw-N.json          a rate, and its score on others
units/TASK/ROW/seed-N.json          metric sums of the people asked, and bytes
events.jsonl                        what happened when
results.json                        the figures
report.html                         the same for people
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fedperfit.cloud.job.events import OnEvent, recording
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.system.errors import InputError, no_file
from fedperfit.protocol.system.files import from_home, write_json
from fedperfit.protocol.tasks import task_id
from fedperfit.simulation.cluster.cluster import ClusterRequest
from fedperfit.simulation.cluster.folders import everywhere
from fedperfit.simulation.cluster.pace import Pace
from fedperfit.simulation.cluster.pool import workers
from fedperfit.simulation.communication.ground import Ground
from fedperfit.simulation.communication.page import REPORT, write_page
from fedperfit.simulation.communication.result import RESULTS, final_figures, results_of
from fedperfit.simulation.communication.row import Row, chosen, rows_by_name
from fedperfit.simulation.communication.settings import CommunicationSettings
from fedperfit.simulation.communication.training.adapter_row import AdapterRow
from fedperfit.simulation.communication.units import SEED, UnitWorker, given, needs, plan
from fedperfit.simulation.optional import required
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.study_folder import LOCK, check_begun, check_new
from fedperfit.simulation.world.build import WORLD, outdate_world


def begin(folder: Path, settings: CommunicationSettings) -> None:
    """Make the folder of a new study.

    Args:
        folder: Folder to make; it may hold the world, as one that was killed here or refused does.
        settings: Settings of the study.

    Raises:
        InputError: The folder is not empty, a row is unknown or lacks public items or a library, data is
            missing or broken, or the preset does not fit the model.
    """
    check_new(folder, resumable=True, beside=WORLD)
    _check_rows(settings)
    for task in settings.tasks:
        preset = RunSettings.read(
            settings.preset, {"task": task, "base-model": settings.base_model, "data": settings.data}
        )
        if preset.open:
            raise InputError(f"preset={settings.preset}: layers and ranks must be given")
        preset.check(read_card(settings.base_model))
    folder.mkdir(parents=True, exist_ok=True)
    outdate_world(folder, map(task_id, settings.tasks))
    ground = Ground(folder, settings)
    for task in settings.tasks:
        ground.search(task_id(task))
    write_json(folder / SETTINGS, settings.to_flat())


def extend(folder: Path, rows: Sequence[str], seeds: Sequence[int]) -> None:
    """Add rows and seeds to a study; what is finished stays.

    Args:
        folder: Folder of the study.
        rows: Names of rows to add.
        seeds: Seeds to add.

    Raises:
        InputError: The folder holds no study, or a row is unknown or lacks something.
    """
    settings = stored_settings(folder)
    more = settings.replace(
        rows=list(dict.fromkeys([*settings.rows, *rows])) if settings.rows else [],
        seeds=list(dict.fromkeys([*settings.seeds, *seeds])),
    )
    _check_rows(more.replace(rows=[*rows]) if rows else more)
    write_json(folder / SETTINGS, more.to_flat())


def stored_settings(folder: Path) -> CommunicationSettings:
    """Read the settings of a study that was begun; raises InputError where there is none."""
    return CommunicationSettings.from_file(check_begun(folder, "study") / SETTINGS)


def run_study(folder: Path, on_event: OnEvent, request: ClusterRequest | None = None) -> dict[str, Any]:
    """Run or resume the study of a folder; its results are written anew after every row and seed.

    Args:
        folder: Folder of the study, with its settings.
        on_event: Called with every event after it is appended to the folder's events.
        request: Workers on a cluster that do the work; None is this process.

    Returns:
        The figures, as in results.json.

    Raises:
        InputError: Another process works on this study, or no rate of a row was low enough.
    """
    settings = stored_settings(folder)
    rows = _rows(settings)
    try:
        with FileLock(folder / LOCK, timeout=0.2), recording(folder, on_event) as record:
            ground = Ground(folder, settings)
            left = [unit for unit in plan(ground, rows) if not (folder / unit.file).exists()]
            record("start", {"run": str(folder), "total": len(left)})
            with workers(request, partial(UnitWorker, everywhere(settings)), folder) as hands:
                results_of_units = hands.work(
                    left,
                    lambda unit: given(folder, settings, unit),
                    needs=lambda unit: needs(settings, unit),
                )
                pace = Pace([(unit.row, unit.kind) for unit in left], len(hands))
                for unit, result in results_of_units:
                    write_json(folder / unit.file, result)
                    if unit.kind == SEED:
                        conclude(folder, ground)
                    done = pace.took((unit.row, unit.kind), result["seconds"])
                    record("work", {"last": str(unit), **done})
            results = conclude(folder, ground)
            record("figures", {"figures": final_figures(results)})
            record("done", {"report": str(folder / REPORT)})
            return results
    except Timeout:
        raise InputError(f"{folder}: another process is running this study") from None


def conclude(folder: Path, ground: Ground) -> dict[str, Any]:
    """Write results and report from the units that are on file, and return the results."""
    results = results_of(folder, ground, _rows(ground.settings))
    write_json(folder / RESULTS, results)
    write_page(folder, results)
    return results


def _rows(settings: CommunicationSettings) -> dict[str, type[Row]]:
    return chosen(rows_by_name(), settings.rows)


def _check_rows(settings: CommunicationSettings) -> None:
    rows = _rows(settings)
    lacking = [name for name, row in rows.items() if row.public]
    if lacking and settings.data != WORLD and not settings.public_items:
        raise InputError(
            f"data={settings.data}: {', '.join(lacking)} need public-items, a JSON list of items of none of "
            "the clients; or leave them out of --rows"
        )
    if settings.public_items and not from_home(settings.public_items).is_file():
        raise InputError(f"public-items={no_file(from_home(settings.public_items))}")
    if any(issubclass(row, AdapterRow) for row in rows.values()):
        required("peft")
