"""The end of a sandbox whose starter is gone, however early that went.

Bubblewrap has the kernel kill a sandbox together with its parent (--die-with-parent), but asks for that only
once all is mounted: where the parent was killed before, it asks in vain, and cannot see that, as that is
in another process namespace. So the starter holds a pipe that leads to the standard input of the first
program inside, which ends the whole sandbox when the pipe is closed.

    python -m fedperfit.protocol.sandboxes.lifeline PROGRAM ARGUMENT ...
"""

import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from fedperfit.protocol.system.processes import SAFE_PATH

_INIT = Path("/proc/1/comm")
_BUBBLEWRAP = "bwrap"
"""Name of process 1 in every sandbox of ours."""
_STANDARD_INPUT = 0


def follow_starter() -> None:
    """End this sandbox once the pipe at standard input is closed; return at once.

    Where standard input is no pipe nobody holds it, and outside of a sandbox there is nothing to end.
    """
    if stat.S_ISFIFO(os.fstat(_STANDARD_INPUT).st_mode) and _INIT.read_text().strip() == _BUBBLEWRAP:
        threading.Thread(target=_watch, name="lifeline", daemon=True).start()


def _watch() -> None:
    while os.read(_STANDARD_INPUT, 1 << 10):
        pass
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)  # all in the sandbox; its process 1 then ends by itself
    os._exit(1)


def main() -> int:
    """Run the program of the command line for as long as its starter lives; return its exit code."""
    follow_starter()
    environment = os.environ | SAFE_PATH
    done = subprocess.run(sys.argv[1:], env=environment, stdin=subprocess.DEVNULL, check=False)
    code = done.returncode
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    raise SystemExit(main())
