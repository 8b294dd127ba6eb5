"""Child processes that are started together, watched, and stopped together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType

import psutil

from fedperfit.protocol.system.logs import PipedLog

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Environment of every child process: no Python in it imports what lies in its current folder."""

_FOLLOWING = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Becomes another program, to which Linux sends SIGTERM once its parent is gone (PR_SET_PDEATHSIG)."""
_TERM_SECONDS = 10.0
_LOOK_SECONDS = 1.0
"""Time between two checks of what a child needs, which read all of /proc."""


@dataclass
class Child:
    """A child process and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int = 0
    """Size of the log when the child was started, in bytes."""
    needs: str = ""
    """Name of a program that the child starts and cannot do without; empty for none."""
    complete: bool = False
    """Whether that program was seen running."""
    looked: float = 0.0
    """Time of the last check, on the monotonic clock."""

    def last_words(self) -> str:
        """Return the last line that the child wrote to its log, or where the log is if it wrote none."""
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else f"see {self.log}"

    def ended(self) -> bool:
        """Return whether the child has ended, or lost the program it needs."""
        if self.process.poll() is not None:
            return True
        if not self.needs or time.monotonic() - self.looked < _LOOK_SECONDS:
            return False
        self.looked = time.monotonic()
        there = any(self.needs in line for line in _command_lines(self.process.pid))
        self.complete |= there
        return self.complete and not there


@dataclass
class Children:
    """A context in which children live; at its end they and all their descendants are stopped."""

    children: list[Child] = field(default_factory=list)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        needs: str = "",
        piped: bool = False,
        sandboxed: bool = False,
    ) -> Child:
        """Start a child in a session of its own; on Linux it ends with this process, however that ends.

        Call it from the main thread: to Linux, the parent is the thread.

        Args:
            name: Name for messages.
            command: Program and arguments.
            log: File its output is appended to.
            environment: Its environment variables; by default those of this process.
            folder: Its working folder; by default that of this process.
            needs: Name of a program that it starts and cannot do without; empty for none.
            piped: Whether this process writes the log for it, so that the child has no hold of the file.
            sandboxed: Whether it is a sandbox, which is told that this process is gone by a pipe that closes
                (fedperfit.protocol.sandboxes.lifeline).
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        start = log.stat().st_size if log.exists() else 0
        with open(PipedLog(log).writer, "wb") if piped else log.open("ab") as out:
            process = subprocess.Popen(
                following(command),
                env={**(os.environ if environment is None else environment), **SAFE_PATH},
                stdin=subprocess.PIPE if sandboxed else subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=folder,
                start_new_session=True,
            )
        child = Child(name, process, log, log_start=start, needs=needs)
        self.children.append(child)
        return child

    def dead(self) -> Child | None:
        """Return a child that has ended or lost what it needs; None if all are well."""
        return next((child for child in self.children if child.ended()), None)

    def stop(self, child: Child) -> None:
        """Stop one child and all its descendants."""
        self.children.remove(child)
        _stop(child.process)

    def __enter__(self) -> "Children":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self.children:
            self.stop(self.children[-1])


def following(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command`, on Linux until this process is gone.

    Args:
        command: Program and arguments.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _FOLLOWING, str(os.getpid()), *command]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, all its descendants, and its sandbox where that is none of them any more."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for number in (signal.SIGTERM, signal.SIGKILL):
        for member in family:
            try:
                member.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        _, family = psutil.wait_procs(family, timeout=_TERM_SECONDS)
    if process.stdin is not None:
        process.stdin.close()
    process.wait()


def wait_until(ready: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; return whether it came true in time.

    Args:
        ready: Condition, checked ten times per second.
        seconds: Longest wait.
    """
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _command_lines(pid: int) -> list[str]:
    """List the command lines of all living descendants of process `pid`."""
    lines = []
    try:
        family = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    for member in family:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            lines.append(" ".join(member.cmdline()))
    return lines


def marked(variable: str, value: str, *, command: str = "") -> list[psutil.Process]:
    """List the other processes of this machine that carry a mark, whoever started them.

    Args:
        variable: Environment variable that is the mark.
        value: Value it has in the processes looked for.
        command: Text in the command line that marks a process too; empty for none.
    """
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            here = process.environ().get(variable) == value
            if here or (command and command in " ".join(process.cmdline())):
                processes.append(process)
    return [process for process in processes if process.pid != os.getpid()]


@contextmanager
def until_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT or SIGTERM has come."""
    stopped = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
