"""Folder of a worker among its machine's temporary files, which no later worker finds."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

_SCRATCH = "fedperfit-worker-"
"""Name of a worker's folder, before the number of its process."""


def scratch_folder() -> Path:
    """Make this process's own folder, and remove those of processes that are gone.

    A worker that is killed cannot remove its folder; the next one on its machine does, and the cluster's end
    where it was started for one command.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{_SCRATCH}*"):
        with suppress(ValueError):
            if not psutil.pid_exists(int(left.name.removeprefix(_SCRATCH))):
                shutil.rmtree(left, ignore_errors=True)
    folder = place / f"{_SCRATCH}{os.getpid()}"
    folder.mkdir(mode=0o700)
    return folder
