"""Settings that all tests share."""

import os
from pathlib import Path

import pytest

# Before torch is loaded: threads that wait spinning slow whatever else runs beside the tests, and them too.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # files of tests run side by side, one per core

TESTS = Path(__file__).parent
SLOW = frozenset((TESTS / "slow.txt").read_text(encoding="utf-8").splitlines())
"""Test functions marked `slow`: they start processes, train for long, or try thousands of inputs. See
`tools/slow_tests.py`."""


@pytest.fixture(autouse=True)
def _safe_path_of_the_console_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a console script that runs in this process sets for its children."""
    monkeypatch.setenv("PYTHONSAFEPATH", os.environ.get("PYTHONSAFEPATH", ""))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests, so that `-m "not slow"` leaves them out."""
    for item in items:
        place = f"{item.path.relative_to(TESTS).as_posix()}::{getattr(item, 'originalname', item.name)}"
        if place in SLOW:
            item.add_marker(pytest.mark.slow)
