"""The context and the people of a module's comparison, which its fixture `state` begins."""

import pytest

from fedperfit.simulation.compare.cells import WorkerState
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.data.participants import Participants


@pytest.fixture(scope="module")
def context(state: WorkerState) -> MethodContext:
    return state.context("LaMP_2M", 0)


@pytest.fixture(scope="module")
def people(state: WorkerState) -> Participants:
    return state.participants("LaMP_2M")
