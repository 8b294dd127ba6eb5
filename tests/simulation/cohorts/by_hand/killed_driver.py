"""The driver of a run on Ray is killed in the middle of a phase, and the run resumed.

Runs `fedperfit simulate --backend ray` in a new folder: once whole, and then with `kill -9` to the driver in
a round of training and while clients personalize. What a killed driver leaves is watched until it is gone,
for up to two minutes; then the run goes on with `--resume`, and must come to what the whole run came to.
About four minutes, or more where the machine has other work.

    python -m tests.simulation.cohorts.by_hand.killed_driver
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from tests.simulation.cohorts.test_remote import agree, said
from tests.simulation.small_run import SMALL

from fedperfit.cloud.job.events import EVENTS
from fedperfit.protocol.system.processes import wait_until

SETTINGS = SMALL | {"others": 2, "new": 1, "history-lengths": [], "collective-sizes": []}
KILLS = {"train": 3, "personalize": 1}
"""Replies of a phase after which the driver is killed: in training, the first of round 2."""
WRITES = re.compile(r"\d+ \S+/1")
"""Names of these counts among the results."""
_SECONDS = 1_200
_GONE_SECONDS = 120.0
_MARK = "FEDPERFIT_KILLED_DRIVER"


def command(folder: Path, *extra: str) -> list[str]:
    """Return the command that runs or resumes a run."""
    start = [sys.executable, "-m", "fedperfit.simulation.cli", "simulate", "--backend", "ray"]
    return [*start, "--ray-actors", "2", "--run-dir", str(folder), *extra]


def fresh(folder: Path) -> list[str]:
    """Return the command that begins a run."""
    values = [f"{key}={json.dumps(value)}" for key, value in SETTINGS.items()]
    return command(folder, *(part for value in values for part in ("--set", value)))


def replies(folder: Path, phase: str) -> int:
    """Count the replies of a phase so far."""
    path = folder / EVENTS
    lines = path.read_text().splitlines() if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return sum(event["event"] == "reply" and event["phase"] == phase for event in events)


def left(folder: Path) -> list[psutil.Process]:
    """Return the processes that a run has started and that are still there."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def finish(folder: Path, words: list[str]) -> None:
    """Run a command to its end, and see that nothing stays behind."""
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=_SECONDS, check=False, env=marked(folder)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not left(folder)


def marked(folder: Path) -> dict[str, str]:
    """Return an environment by which the processes of a run are known."""
    return {**os.environ, _MARK: str(folder)}


def killed(folder: Path, phase: str, after: int) -> tuple[int, float]:
    """Kill the driver in a phase; how many processes it left, and the seconds until they were gone."""
    with subprocess.Popen(fresh(folder), stdout=subprocess.DEVNULL, env=marked(folder)) as driver:
        try:
            wait_until(lambda: replies(folder, phase) >= after or driver.poll() is not None, _SECONDS)
            assert driver.poll() is None, "it ended before it was killed"
        finally:
            driver.kill()
    began, number = time.monotonic(), len(left(folder))
    assert wait_until(lambda: not left(folder), _GONE_SECONDS), left(folder)
    return number, time.monotonic() - began


def results(folder: Path) -> dict[str, Any]:
    """Return all that a run comes to, but for how often personal shifts were written."""
    return {name: value for name, value in said(folder).items() if not WRITES.fullmatch(name)}


def main() -> None:
    """Run all of it, and print what was seen."""
    with TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        finish(whole, fresh(whole))
        for phase, after in KILLS.items():
            folder = Path(place) / phase
            number, seconds = killed(folder, phase, after)
            assert not (folder / "report.html").exists(), "it was over before it was killed"
            finish(folder, command(folder, "--resume"))
            ours, theirs = results(folder), results(whole)
            assert agree(ours, theirs), f"killed in {phase}: the results differ"
            print(f"killed in {phase}: {number} processes left, gone after {seconds:.0f} s", flush=True)
    print("resumed, all came to the same results")


if __name__ == "__main__":
    main()
