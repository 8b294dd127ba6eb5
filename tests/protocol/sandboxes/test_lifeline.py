"""A sandbox ends with its starter, also where that is killed before the sandbox could ask for it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cloud.deployment.clouds import needs_bwrap
from tests.protocol.sandboxes.interrupted import ended, interrupted

from fedperfit.cloud.deployment import confinement as cloud
from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.edge.sandbox import confinement as edge

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def sandbox(side: str, folder: Path) -> list[str]:
    if side == "edge":
        return edge.confined(SLEEP, shown={})
    return cloud.confined(CloudHome(folder / "cloud"), SLEEP, shown=[])


@needs_bwrap
@pytest.mark.parametrize("side", ["edge", "cloud"])
def test_a_sandbox_ends_whose_starter_was_killed_while_it_was_built(tmp_path, side):
    with interrupted(sandbox(side, tmp_path), tmp_path) as (first, go_on):
        go_on()
        assert ended(first)


@needs_bwrap
def test_bubblewrap_alone_does_not_end(tmp_path):
    """The control: it asks to be killed with a parent that is gone already."""
    command = ["bwrap", "--unshare-pid", "--die-with-parent", "--dev-bind", "/", "/", *SLEEP]
    with interrupted(command, tmp_path) as (first, go_on):
        go_on()
        time.sleep(2)
        assert first.is_running()


def test_outside_of_a_sandbox_nothing_is_ended():
    command = [sys.executable, "-m", "fedperfit.protocol.sandboxes.lifeline", sys.executable, "-c"]
    code = "import time; time.sleep(1); exit(3)"
    with subprocess.Popen([*command, code], stdin=subprocess.PIPE) as follower:
        assert follower.stdin is not None
        follower.stdin.close()
        assert follower.wait(timeout=30) == 3


@needs_bwrap
def test_where_nobody_holds_a_pipe_the_program_runs_to_its_end(tmp_path):
    command = [*sandbox("cloud", tmp_path)[: -len(SLEEP)], sys.executable, "-c", "exit(3)"]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 3
