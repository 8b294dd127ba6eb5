"""Temporary folders of processes that may be killed: later ones remove what is left of them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

CLUSTER, WORKER, COMMAND = "fedperfit-ray-", "fedperfit-worker-", "fedperfit-"
"""Names of a cluster's, a worker's and a command's folder, before the number of the process that made it."""


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder for what a command works with, people's histories perhaps; it is removed at the end."""
    folder = scratch_folder(COMMAND)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def scratch_folder(kind: str) -> Path:
    """Make a folder for this process alone, and remove those of all kinds whose processes are gone.

    A process that is killed cannot remove its folder; the next one on its machine does.

    Args:
        kind: What the name begins with.
    """
    for one in (CLUSTER, WORKER, COMMAND):
        for left in Path(tempfile.gettempdir()).glob(f"{one}*"):
            with suppress(ValueError):
                if not psutil.pid_exists(int(left.name.removeprefix(one).partition("-")[0])):
                    shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{kind}{os.getpid()}-"))
