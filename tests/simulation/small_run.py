"""A whole run in this process, on a world of a few users."""

from pathlib import Path

from tests.simulation.local_grid import LocalGrid

from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.protocol.system.files import write_json
from fedperfit.simulation.run.clients import prepare_clients
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.run.study import Study

SMALL = {
    "others": 3,
    "targets": 2,
    "new": 2,
    "world-history": 8,
    "world-questions": 4,
    "rounds": 2,
    "clients-per-round": 2,
    "personal-epochs": 1,
    "history-lengths": [0, 4],
    "collective-sizes": [2],
    "device": "cpu",
    "dtype": "float32",
}


def small_settings(**changes: object) -> RunSettings:
    """The quickstart preset, made small."""
    overrides = SMALL | {name.replace("_", "-"): value for name, value in changes.items()}
    return RunSettings.read("quickstart", overrides)


def prepare(folder: Path, settings: RunSettings) -> int:
    """Write settings and client folders; returns the number of clients."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, settings.to_flat())
    return len(prepare_clients(settings, folder))


def run_locally(folder: Path, settings: RunSettings) -> LocalGrid:
    """Run the study of `folder`; returns the grid with every reply the server got."""
    grid = LocalGrid(folder, prepare(folder, settings))
    Study(grid, settings, folder, lambda event, values: None).run()
    return grid
