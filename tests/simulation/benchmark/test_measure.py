import subprocess
import sys
from dataclasses import replace

import psutil
import pytest
from tests.simulation.benchmark.benchmark_cases import TINY, tiny_workload

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.processes import wait_until
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


def test_a_measurement_ends_with_the_benchmark_that_took_it() -> None:
    script = (
        "from tests.simulation.benchmark.benchmark_cases import TINY, tiny_workload\n"
        "from fedperfit.simulation.benchmark.measure import measure\n"
        "measure('engine', TINY, tiny_workload(), threads=1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        parent, children = psutil.Process(process.pid), []

        def measuring() -> bool:
            children[:] = parent.children()
            return any("fedperfit.simulation.benchmark.measure" in child.cmdline() for child in children)

        assert wait_until(measuring, 60)
        process.kill()
    assert wait_until(lambda: not any(child.is_running() for child in children), 3)


def test_unknown_contenders_are_refused() -> None:
    with pytest.raises(InputError, match="unknown contender 'adam': expected one of engine, plain"):
        measure("adam", TINY, tiny_workload(), threads=1)
