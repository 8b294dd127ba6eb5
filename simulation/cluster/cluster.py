"""Ray cluster that workers are placed on: one that is given, or one started here and stopped again."""

import atexit
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fedperfit.protocol.system.allocator import ALLOCATOR
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.flower import EQUAL, QUIET
from fedperfit.protocol.system.processes import SAFE_PATH
from fedperfit.simulation.cluster.head import AUTO, HeadLost, check_address, watched
from fedperfit.simulation.cluster.scratch import CLUSTER, scratch_folder
from fedperfit.simulation.optional import required

_ROUNDING = 1e-9
"""What shares may lack of a whole, as Ray counts them."""
LEAST_CPUS = 0.01
"""Smallest share of a core that a worker may have."""
_STORE_BYTES = 512 << 20
"""Size of the object store of a cluster started here; Ray moves to disk what does not fit."""


@dataclass(frozen=True)
class ClusterRequest:
    """Workers that a user asks for, and where."""

    address: str = ""
    """`HOST:PORT` of a running cluster, or `auto` for the one on this machine; empty starts one here."""
    workers: int = 0
    """Number of workers; 0 is as many as there is room for."""
    cpus: float | None = None
    """Cores of each worker, or a share of one; None is one, and a share of this machine's where a cluster is
    started here for so many workers."""
    gpus: float | None = None
    """GPUs of each worker, or a share of one; None is one, and a share where there are more workers."""


@dataclass(frozen=True)
class Placement:
    """Workers of one kind, as they are placed on a cluster."""

    workers: int
    """Number of workers; those that find no room yet join when there is some."""
    cpus: float
    """Cores of each worker."""
    gpus: float
    """GPUs of each worker."""


@contextmanager
def cluster(request: ClusterRequest) -> Iterator[Placement]:
    """Connect to the cluster that is given, or run one on this machine for the length of the block.

    Args:
        request: Workers that are wanted, and where.

    Yields:
        How the workers are placed.

    Raises:
        InputError: Ray cannot be imported, nothing answers at the address, or the workers have no room.
        RunFailed: The cluster's head was lost within the block.
    """
    ray = required("ray")
    check_address(request.address)
    before, on_term = dict(os.environ), signal.getsignal(signal.SIGTERM)
    own, lost = scratch_folder(CLUSTER), False
    os.environ |= QUIET | ALLOCATOR | SAFE_PATH | EQUAL
    try:
        _connect(ray, request.address, str(own))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)  # Ray has put its own in place
        placed = placement(request, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        with watched(ray.get_runtime_context().gcs_address):
            yield placed
    except HeadLost:
        lost = True
        atexit.register(_leave)  # comes before Ray's own, and so in its place
        raise
    finally:
        with _uninterrupted():
            if not lost:
                ray.shutdown()
            for name in set(os.environ) - set(before):
                del os.environ[name]
            os.environ |= before
            shutil.rmtree(own, ignore_errors=True)


def _leave() -> None:
    """End this process as one that failed, without Ray, which breaks down where its head is lost."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Do a block of some seconds to its end, however often somebody presses Ctrl-C meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _connect(ray: Any, address: str, folder: str) -> None:
    """Connect this process to a cluster; `folder` is for the files of one that is started."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        os.environ["TMPDIR"] = folder  # what killed workers leave there goes with it
        options |= {
            "num_cpus": cores(),
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
            "_temp_dir": folder,
        }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about what Ray will do one day
            ray.init(address=address or "local", **options)
    except ConnectionError as error:
        if address != AUTO:
            raise InputError(f"ray-address={address}: {_line(error)}") from None
        raise InputError(
            f"ray-address={AUTO}: no cluster runs on this machine, where `ray start --head` starts one"
        ) from None
    except Exception as error:  # Ray raises the base class itself, among others
        place = f"ray-address={address}" if address else "a Ray cluster on this machine"
        raise InputError(f"{place}: {_line(error)}") from None


def _line(error: Exception) -> str:
    """Return the beginning of what an error says, in one line."""
    return " ".join(str(error).split())[:300]


def placement(request: ClusterRequest, nodes: Sequence[Mapping[str, float]]) -> Placement:
    """Choose how the workers are placed.

    More workers than there are cores for may be asked for: the others join where a cluster grows. GPUs that
    are not there are a mistake.

    Args:
        request: Workers that are wanted.
        nodes: Resources of each node, with `CPU` and `GPU` among them.

    Raises:
        InputError: A worker has no room on any node, a share that is too small or no number, or all have more
            GPUs together than there are.
    """
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    cores_each, gpus_each = request.cpus, request.gpus
    if cores_each is None:
        cores_each = cpus / request.workers if request.workers and not request.address else 1.0
    if gpus_each is None:
        gpus_each = min(1.0, gpus / request.workers) if request.workers else min(1.0, gpus)
    if not cores_each >= LEAST_CPUS:
        share = f"{request.workers} workers: " if request.cpus is None else ""
        raise InputError(f"{share}{cores_each:g} CPUs for each of them, {LEAST_CPUS:g} are the least")
    if not gpus_each >= 0:
        raise InputError(f"{gpus_each:g} GPUs for each worker: expected a number, 0 or more")
    fitting = sum(_fitting(node, cores_each, gpus_each) for node in nodes)
    workers = request.workers or fitting
    there = f"the cluster has {cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} nodes"
    if workers * gpus_each > gpus:
        raise InputError(f"{workers} workers of {gpus_each:g} GPUs each: {there}")
    if not fitting:
        raise InputError(
            f"{there}, none with room for a worker of {cores_each:g} CPUs and {gpus_each:g} GPUs"
        )
    return Placement(workers, cores_each, gpus_each)


def _fitting(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Count the workers that a node has room for."""
    room = node.get("CPU", 0.0) / cpus
    return int(min(room, node.get("GPU", 0.0) / gpus if gpus else room) + _ROUNDING)


def cores() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
