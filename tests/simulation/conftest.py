"""Fixtures that several test files of the simulation share."""

import os
import shutil

import pytest
from filelock import FileLock
from tests.simulation.compare.small_comparison import run_all, started, tiny_base

from fedperfit.simulation.compare.cells import WorkerState
from fedperfit.simulation.compare.settings import CompareSettings


@pytest.fixture(scope="session")
def every_method(tmp_path_factory: pytest.TempPathFactory) -> WorkerState:
    """A finished comparison of all methods on a few users, made once for all processes of pytest-xdist."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, base = shared / "every-method" / "run", shared / "every-method" / "base"
    with FileLock(shared / "every-method.lock"):
        if (folder / "settings.json").exists():
            return WorkerState(folder, CompareSettings.from_file(folder / "settings.json"))
        shutil.copytree(tiny_base(), base)
        state = started(folder, base_model=str(base))
        run_all(state)
    return state
