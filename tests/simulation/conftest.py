"""Fixtures that several test files of the simulation share."""

import pytest
from tests.simulation.compare.small_comparison import run_all, started

from fedperfit.simulation.compare.cells import WorkerState


@pytest.fixture(scope="session")
def every_method(tmp_path_factory: pytest.TempPathFactory) -> WorkerState:
    """A finished comparison of all methods on a few users."""
    state = started(tmp_path_factory.mktemp("compare") / "run")
    run_all(state)
    return state
