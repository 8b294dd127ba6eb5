"""What code in a sandbox that root made changes of the whole machine: the kernel's settings, in /proc/sys.

One of them names a program that the kernel starts, outside of all sandboxes, for every process that crashes.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.cloud.deployment.clouds import make_cloud, needs_bwrap

from fedperfit.cloud.deployment import confinement as of_runs
from fedperfit.edge.sandbox import confinement as of_edges

OPEN = """
import os
for place, folders, files in os.walk("/proc"):
    folders[:] = [one for one in folders if not one.isdigit() and one not in ("self", "thread-self")]
    for name in files:
        try:
            os.close(os.open(os.path.join(place, name), os.O_WRONLY | os.O_NONBLOCK))
            print(os.path.join(place, name))
        except OSError:
            pass
"""
"""Opens for writing whatever there is of the machine's, writes nothing, and names what was opened."""
UNGUARDED = ("--proc", "/proc", "--dev", "/dev")
CORE = "/proc/sys/kernel/core_pattern"

pytestmark = [
    needs_bwrap,
    pytest.mark.skipif(os.geteuid() != 0, reason="the settings are root's alone to change"),
    pytest.mark.timeout(120),
]


@pytest.fixture(params=["an edge's sandbox", "a run's sandbox"])
def command(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command that opens them in a sandbox, whose guard is off where that is asked for."""
    code = [sys.executable, "-P", "-c", OPEN]

    def confined(guarded: bool) -> Sequence[str]:
        if not guarded:
            for module in (of_edges, of_runs):
                monkeypatch.setattr(module, "KERNEL", UNGUARDED)
        if request.param == "an edge's sandbox":
            return of_edges.confined(code, shown={})
        home, _ = make_cloud(tmp_path / "cloud")
        return of_runs.confined(home, code, shown=[])

    return confined


def opened(command: Sequence[str]) -> list[str]:
    done = subprocess.run(
        command, capture_output=True, check=True, text=True, stdin=subprocess.DEVNULL, env=os.environ
    )
    return done.stdout.split()


def test_guard_off_the_kernel_would_start_what_the_sandbox_names(command) -> None:
    assert CORE in opened(command(guarded=False))


def test_guard_on_nothing_of_the_kernels_can_be_written(command) -> None:
    assert opened(command(guarded=True)) == []
