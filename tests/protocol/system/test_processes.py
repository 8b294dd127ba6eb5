import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fedperfit.protocol.system.processes import Children, marked, wait_until

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
PARENT = [
    *(sys.executable, "-c"),
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', 'the-helper'])\n"
    "time.sleep(600)",
]
STUBBORN = [
    *(sys.executable, "-c"),
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\n"
    "time.sleep(600)",
]


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def test_at_the_end_nothing_is_left_even_when_it_fails(tmp_path: Path):
    started: list[psutil.Process] = []

    def start_and_fail() -> None:
        with Children() as children:
            for members, name, command in ((1, "one", SLEEP), (2, "two", PARENT)):
                pid = children.start(name, command, log=tmp_path / f"{name}.log").process.pid
                assert wait_until(lambda pid=pid, members=members: len(family(pid)) == members, 30)
                started.extend(family(pid))
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        start_and_fail()
    assert len(started) == 3
    assert not any(process.is_running() for process in started)
    assert wait_until(lambda: "up" in (tmp_path / "one.log").read_text(), 1)


_STARTER = """
import sys, time
from pathlib import Path
from fedperfit.protocol.system.processes import Children
children = Children()
child = children.start("child", sys.argv[2:], log=Path(sys.argv[1]) / "log")
print(child.process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path):
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", _STARTER, str(tmp_path), *SLEEP], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert wait_until(lambda: "up" in (tmp_path / "log").read_text(), 30)
    assert child.is_running()
    parent.kill()
    parent.wait()
    gone, _ = psutil.wait_procs([child], timeout=10)
    assert gone == [child]


def test_without_that_a_child_outlives_its_parent():
    """The control."""
    code = f"import subprocess; print(subprocess.Popen({SLEEP!r}, stdout=-3, stderr=-3).pid)  # -3: DEVNULL"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    child = psutil.Process(int(done.stdout))
    time.sleep(0.5)
    assert child.is_running()
    child.kill()


def test_who_ignores_the_request_is_killed(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("fedperfit.protocol.system.processes._TERM_SECONDS", 0.5)
    with Children() as children:
        child = children.start("stubborn", STUBBORN, log=tmp_path / "log")
        assert wait_until(lambda: "up" in (tmp_path / "log").read_text(), 30)
    assert not psutil.pid_exists(child.process.pid)


def test_a_child_that_lost_what_it_needs_is_dead(tmp_path: Path):
    with Children() as children:
        child = children.start("parent", PARENT, log=tmp_path / "log", needs="the-helper")
        assert wait_until(lambda: children.dead() is None and child.complete, 30)
        (helper,) = family(child.process.pid)[1:]
        helper.kill()
        assert wait_until(lambda: children.dead() is child, 30)
        assert child.process.poll() is None


def test_a_child_that_ended_is_dead(tmp_path: Path):
    with Children() as children:
        child = children.start("brief", [sys.executable, "-c", ""], log=tmp_path / "log")
        assert wait_until(lambda: children.dead() is child, 30)
        children.stop(child)
        assert children.dead() is None


def test_waiting_ends_in_time():
    started = time.monotonic()
    assert not wait_until(lambda: False, 0.2)
    assert time.monotonic() - started >= 0.2
    assert wait_until(lambda: True, 0)


def test_a_signal_is_told_and_handlers_are_put_back():
    code = (
        "import os, signal\nfrom fedperfit.protocol.system.processes import until_signal\n"
        "before = signal.getsignal(signal.SIGTERM)\n"
        "with until_signal() as stopping:\n"
        "    print(stopping())\n    os.kill(os.getpid(), signal.SIGTERM)\n    print(stopping())\n"
        "print(signal.getsignal(signal.SIGTERM) is before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "True", "True"]


def test_marked_processes_are_found_by_environment_or_command_line():
    value = f"mark-{os.getpid()}"
    by_variable = subprocess.Popen(SLEEP, env={**os.environ, "A_MARK": value})
    by_command = subprocess.Popen([*SLEEP, value])
    try:
        assert wait_until(lambda: [p.pid for p in marked("A_MARK", value)] == [by_variable.pid], 30)
        both = {by_variable.pid, by_command.pid}
        assert wait_until(lambda: {p.pid for p in marked("A_MARK", value, command=value)} == both, 30)
        assert marked("A_MARK", "another") == []
    finally:
        for process in (by_variable, by_command):
            process.kill()
            process.wait()
