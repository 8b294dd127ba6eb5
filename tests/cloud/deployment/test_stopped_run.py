"""What becomes of a run whose command is stopped or killed, on a SuperLink that stays up."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.cloud.deployment.clouds import make_cloud, needs_nginx, running

from fedperfit.cloud.deployment.home import CONNECTION, CloudHome
from fedperfit.cloud.job.events import EVENTS
from fedperfit.protocol.system.files import json_lines
from fedperfit.protocol.system.flower import executable, listed_runs
from fedperfit.protocol.system.processes import wait_until

pytestmark = needs_nginx
PROGRAM = [executable("fedperfit-cloud"), "run"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[CloudHome]:
    home, _ = make_cloud(tmp_path / "cloud")  # whose clients never come
    with running(home):
        yield home


def interruptible() -> None:
    """Have Ctrl-C end a program also where the tests run in the background of a shell, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def begun(home: CloudHome, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`fedperfit-cloud run` from when its ServerApp has begun once more."""
    events = home.runs / "one" / EVENTS

    def starts() -> int:
        return sum(event["event"] == "start" for _, event in json_lines(events)) if events.exists() else 0

    before = starts()
    command = [*PROGRAM, str(home.folder), "--name", "one", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
    )
    try:
        assert wait_until(lambda: starts() > before or process.poll() is not None, 120)
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


def statuses(home: CloudHome) -> list[str]:
    return [run["status"] for run in listed_runs(CONNECTION, home.environment())]


def followers(home: CloudHome) -> list[psutil.Process]:
    """Processes that follow a run, whoever started them."""
    app = str(home.runs / "one" / "app")
    return [one for one in psutil.process_iter(["cmdline"]) if app in (one.info["cmdline"] or [])]


@pytest.mark.timeout(600)
def test_a_run_ends_with_its_command_or_before_the_next(home: CloudHome) -> None:
    with begun(home) as process:
        refused = subprocess.run([*PROGRAM, str(home.folder)], capture_output=True, text=True, check=False)
        assert (refused.returncode, "another run of this cloud is under way" in refused.stderr) == (2, True)
        process.send_signal(signal.SIGTERM)
        said, wrong = process.communicate(timeout=60)
    assert (process.returncode, wrong) == (130, "")
    assert said.endswith(f"go on with: fedperfit-cloud run {home.folder} --name one --resume\n")
    assert statuses(home) == ["finished:stopped"]

    with begun(home, "--resume") as process:
        process.kill()
    assert wait_until(lambda: not followers(home), 10)
    assert statuses(home) == ["running", "finished:stopped"]

    with begun(home, "--resume") as process:
        assert statuses(home) == ["running", "finished:stopped", "finished:stopped"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert set(statuses(home)) == {"finished:stopped"}
