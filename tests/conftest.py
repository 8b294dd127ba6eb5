"""Settings that all tests share."""

import os
from pathlib import Path

import pytest

# Before torch is loaded: threads that wait spinning slow whatever else runs beside the tests, and them too.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # files of tests run side by side, one per core

TESTS = Path(__file__).parent
SLOW = (
    "cloud/deployment/test_up.py",
    "cloud/job/test_group_directions_search.py",
    "docs/test_commands.py",
    "edge/sandbox/test_confinement.py",
    "edge/deployment/test_deployed.py",
    "edge/deployment/test_deployed_directions.py",
    "edge/web/test_page.py",
    "examples/test_examples.py::test_a_method_of_ones_own_is_a_row_of_the_table",
    "protocol/shift/test_orthonormal.py::test_rows_stay_orthonormal_through_a_thousand_steps",
    "protocol/shift/test_orthonormal.py::test_training_reaches_a_loss_no_worse_than_pyreft",
    "protocol/shift/test_packing.py::test_any_json_in_a_header_field_is_refused_or_still_a_shift",
    "protocol/shift/test_packing_fuzz.py",
    "protocol/shift/test_probe.py::test_ccs_finds_the_direction_the_pairs_differ_along",
    "protocol/trust/test_release.py::test_every_bit_flip_and_every_truncation_is_refused",
    "protocol/trust/test_release.py::test_fuzzed_bytes_are_a_typed_error",
    "protocol/trust/test_release.py::test_fuzzed_fields_are_a_typed_error",
    "simulation/analyze/test_study.py",
    "simulation/benchmark/test_measure.py",
    "simulation/benchmark/test_peers.py",
    "simulation/compare/test_cli.py",
    "simulation/compare/test_determinism.py",
    "simulation/compare/test_methods.py",
    "simulation/compare/test_secrecy.py",
    "simulation/data/test_lamp_fuzz.py",
    "simulation/run/test_automatic_choice.py",
    "simulation/run/test_report.py",
    "simulation/run/test_study.py",
    "simulation/test_deployment.py",
    "simulation/test_flower_run.py",
    "simulation/test_group_directions.py",
    "simulation/test_non_interference.py",
    "simulation/test_real_users.py",
)
"""Test files and tests marked `slow`: they start processes, train for long, or try thousands of inputs."""


@pytest.fixture(autouse=True)
def _safe_path_of_the_console_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a console script that runs in this process sets for its children."""
    monkeypatch.setenv("PYTHONSAFEPATH", os.environ.get("PYTHONSAFEPATH", ""))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests, so that `-m "not slow"` leaves them out."""
    for item in items:
        place = f"{item.path.relative_to(TESTS).as_posix()}::{getattr(item, 'originalname', item.name)}"
        if place in SLOW or place.partition("::")[0] in SLOW:
            item.add_marker(pytest.mark.slow)
