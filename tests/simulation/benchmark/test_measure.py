from dataclasses import replace

import pytest
from tests.simulation.benchmark.benchmark_cases import TINY, tiny_workload

from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.benchmark.measure import measure


def test_a_contender_is_measured_in_a_process_of_its_own() -> None:
    model = replace(TINY, layers=2)
    figures = measure("engine", model, tiny_workload(users=1, personal_epochs=1), threads=1)
    assert figures.seconds_per_user > 0
    assert figures.state_bytes == 4 * 2 * (2 * 4 * 32 + 4)
    assert figures.peak_bytes is None or figures.peak_bytes >= 0


def test_an_error_of_the_child_is_one_line() -> None:
    model = replace(TINY, name="no/such/base/model")
    with pytest.raises(InputError, match=r"^engine: base model .*no such folder$"):
        measure("engine", model, tiny_workload(), threads=1)


def test_unknown_contenders_are_refused() -> None:
    with pytest.raises(InputError, match="unknown contender 'adam': expected one of engine, plain"):
        measure("adam", TINY, tiny_workload(), threads=1)
