"""Sandboxes whose starter is killed while they are built: after the fork, before anything runs in them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from fedperfit.protocol.system.processes import wait_until

_STARTER = """
import sys, time
from pathlib import Path
from fedperfit.protocol.system.processes import Children
children = Children()
child = children.start("sandbox", sys.argv[2:], log=Path(sys.argv[1]) / "log", sandboxed=True)
print(child.process.pid, flush=True)
time.sleep(600)
"""
_BLOCKED = 9
"""Descriptor at which bubblewrap waits with all mounted, before it asks to be killed with its parent."""


@contextmanager
def interrupted(command: Sequence[str], folder: Path) -> Iterator[tuple[psutil.Process, Callable[[], None]]]:
    """Yield the first process of a sandbox that has lost its starter, and a function by which it goes on.

    Args:
        command: Command line that begins with bubblewrap.
        folder: Empty folder.
    """
    gate = folder / "gate"
    os.mkfifo(gate)
    opened = os.open(gate, os.O_RDWR)
    bubblewrap, *arguments = command
    shell = ["sh", "-c", f'exec "$@" {_BLOCKED}<"$0"', str(gate)]
    blocked = [*shell, bubblewrap, "--block-fd", str(_BLOCKED), *arguments]
    starter = subprocess.Popen(
        [sys.executable, "-P", "-c", _STARTER, str(folder), *blocked], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    with starter:
        outer = psutil.Process(int(starter.stdout.readline()))
        first = None
        try:
            assert wait_until(lambda: _waits(outer), 30), (folder / "log").read_text()
            (first,) = outer.children()
            starter.kill()
            assert ended(outer)
            assert first.is_running()
            yield first, lambda: os.write(opened, b"!")
        finally:
            starter.kill()
            os.close(opened)
            with suppress(psutil.NoSuchProcess):
                if first is not None:
                    first.kill()


def ended(process: psutil.Process) -> bool:
    """Return whether a process ends within ten seconds."""
    return bool(psutil.wait_procs([process], timeout=10)[0])


def _waits(outer: psutil.Process) -> bool:
    """Return whether the sandbox waits at the descriptor: its file system is the new one."""
    with suppress(psutil.Error, OSError):
        for first in outer.children():
            return os.readlink(f"/proc/{first.pid}/cwd") == "/" and first.status() == psutil.STATUS_SLEEPING
    return False
