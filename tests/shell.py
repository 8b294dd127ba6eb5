"""An interactive user's shell, command by command, and the end of everything that was started from it."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from fedperfit.protocol.system.flower import QUIET

ROOT = Path(__file__).parents[1]


class Shell:
    """A bash in a folder, with the programs of this environment."""

    def __init__(self, folder: Path) -> None:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.process = subprocess.Popen(
            ["bash"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **QUIET, "PATH": path, "PYTHONPATH": str(ROOT / "src")},
        )

    def run(self, command: str) -> str:
        """Run a command and return the output, with that of background jobs; fail when the command fails."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\necho __done $?\n")
        self.process.stdin.flush()
        said = []
        for line in self.process.stdout:
            if "__done" in line:
                assert line.split("__done ")[1].strip() == "0", command + "\n" + "".join(said)
                return "".join(said)
            said.append(line)
        raise AssertionError(f"the shell ended: {''.join(said)}")

    def end(self) -> None:
        """End the shell itself."""
        self.process.kill()
        self.process.wait()


def started_in(folder: Path) -> list[psutil.Process]:
    """Find every process that knows this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            told = " ".join(process.cmdline()) + str(process.environ()) + process.cwd()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if str(folder) in told and process.pid != os.getpid():
            found.append(process)
    return found
