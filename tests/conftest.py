"""Settings that all tests share."""

import gc
import os
from pathlib import Path

import pytest

gc.disable()  # until all is loaded
os.environ.setdefault("RAY_worker_niceness", "0")  # else what Flower starts waits for the other tests' turns
# Before torch is loaded: threads that wait spinning slow whatever else runs beside the tests, and them too.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # files of tests run side by side, one per core

TESTS = Path(__file__).parent
SLOW = frozenset((TESTS / "slow.txt").read_text(encoding="utf-8").splitlines())
"""Test functions marked `slow`: they start processes, train for long, or try thousands of inputs. See
`tools/slow_tests.py`."""
LONGEST = (
    "docs/test_readme.py",
    "docs/test_commands.py",
    "simulation/test_deployment.py",
    "simulation/compare/test_cli.py",
    "simulation/test_group_directions.py",
    "simulation/test_flower_run.py",
    "simulation/cluster/test_studies.py",
    "test_wheel.py",
    "simulation/benchmark/test_equal_score.py",
    "simulation/compare/test_determinism.py",
    "simulation/compare/test_methods.py",
    "simulation/benchmark/test_cli.py",
)
"""Files that take longest. They are begun first, so that no worker is left alone with one in the end."""


@pytest.fixture(autouse=True)
def _safe_path_of_the_console_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a console script that runs in this process sets for its children."""
    monkeypatch.setenv("PYTHONSAFEPATH", os.environ.get("PYTHONSAFEPATH", ""))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests, so that `-m "not slow"` leaves them out, and put the longest files first."""
    for item in items:
        place = f"{item.path.relative_to(TESTS).as_posix()}::{getattr(item, 'originalname', item.name)}"
        if place in SLOW:
            item.add_marker(pytest.mark.slow)
    first = {TESTS / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))


def pytest_collection_finish() -> None:
    """Look for garbage again, though not among a million objects of what is loaded for good."""
    gc.collect()
    gc.freeze()
    gc.enable()
