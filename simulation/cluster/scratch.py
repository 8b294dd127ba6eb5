"""Temporary folders of processes that may be killed: later ones remove what is left of them."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

CLUSTER, WORKER = "fedperfit-ray-", "fedperfit-worker-"
"""Names of a cluster's and of a worker's folder, before the number of the process that made it."""


def scratch_folder(kind: str) -> Path:
    """Make a folder for this process alone, and remove those of the kind whose processes are gone.

    A process that is killed cannot remove its folder; the next one on its machine does.

    Args:
        kind: What the name begins with.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{kind}*"):
        with suppress(ValueError):
            if not psutil.pid_exists(int(left.name.removeprefix(kind).partition("-")[0])):
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{kind}{os.getpid()}-"))
