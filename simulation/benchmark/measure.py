"""Measurement of one contender on one workload in a process of its own.

The process, `python -m fedperfit.simulation.benchmark.measure`, reads one JSON object on stdin and writes one
JSON line: the figures, or `error`.
"""

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.processes import SAFE_PATH, following
from fedperfit.simulation.benchmark.model import ModelSpec
from fedperfit.simulation.benchmark.workload import Lengths, Workload
from fedperfit.simulation.memory import reset_peak, status_bytes
from fedperfit.simulation.run.settings import RunSettings

_LEAST_SECONDS = 3.0
"""Least work before the clock starts, and on it; a processor's first seconds are unlike the others."""


@dataclass(frozen=True)
class Figures:
    """Time and memory that one contender took."""

    seconds_per_user: float
    """Seconds in a warm process, with making the adapter and any cache, and without loading the model."""
    peak_bytes: int | None
    """Largest memory of one epoch above that of the loaded model; None where the system does not tell."""
    state_bytes: int
    """Bytes that are kept of one user."""


def measure(contender: str, model: ModelSpec, workload: Workload, *, threads: int) -> Figures:
    """Run `contender` in a fresh process.

    Args:
        contender: Name of a contender.
        model: The base model.
        workload: Users, items and settings.
        threads: CPU threads.

    Raises:
        InputError: The contender is unknown or fails; the message is one line.
    """
    from fedperfit.simulation.benchmark.contenders import CONTENDERS

    if contender not in CONTENDERS:
        raise InputError(f"unknown contender {contender!r}: expected one of {', '.join(CONTENDERS)}")
    if threads < 1:
        raise InputError(f"threads={threads}: must be at least 1")
    order = {
        "contender": contender,
        "model": asdict(model),
        "lengths": asdict(workload.lengths),
        "users": workload.users,
        "items": workload.items,
        "settings": workload.settings.to_flat(),
        "threads": threads,
    }
    child = subprocess.run(
        following([sys.executable, "-P", "-m", "fedperfit.simulation.benchmark.measure"]),
        input=json.dumps(order),
        capture_output=True,
        text=True,
        env=os.environ | _environment(threads) | SAFE_PATH,
    )
    lines = child.stdout.splitlines()
    if not lines:
        raise InputError(f"{contender}: its process ended with {child.returncode} and said nothing")
    answer = json.loads(lines[-1])
    if "error" in answer:
        raise InputError(f"{contender}: {answer['error']}")
    return Figures(**answer)


def _environment(threads: int) -> dict[str, str]:
    from fedperfit.protocol.system.allocator import ALLOCATOR

    return ALLOCATOR | {"OMP_NUM_THREADS": str(threads)}


def main() -> None:
    """Run the contender in this child process; everything a library prints goes to stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = asdict(_run(json.load(sys.stdin)))
    except Exception as error:  # whatever a peer raises is one line for the parent
        text = " ".join(str(error).split())[:300]
        answer = {"error": text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"}
    print(json.dumps(answer))


def _run(order: dict[str, Any]) -> Figures:
    import torch

    from fedperfit.simulation.benchmark.contenders import contender
    from fedperfit.simulation.benchmark.model import make_base
    from fedperfit.simulation.benchmark.workload import make_examples

    torch.set_num_threads(order["threads"])
    fit = contender(order["contender"])
    workload = Workload(
        lengths=Lengths(**order["lengths"]),
        users=order["users"],
        items=order["items"],
        settings=RunSettings.from_flat(order["settings"]),
    )
    base = make_base(ModelSpec(**order["model"]))
    short = replace(workload, settings=workload.settings.replace(personal_epochs=1))
    first_batch = next(make_examples(base, workload))[: workload.settings.batch_size]
    fit(base, [first_batch], replace(short, users=1, items=len(first_batch)))
    cuda = base.device.type == "cuda"
    gc.collect()
    loaded = reset_peak(cuda)
    started = time.perf_counter()
    while time.perf_counter() - started < _LEAST_SECONDS:
        fit(base, make_examples(base, short), short)
    peak = torch.cuda.max_memory_allocated() if cuda else status_bytes("VmHWM")
    passes, seconds = 0, 0.0
    started = time.perf_counter()
    while seconds < _LEAST_SECONDS:
        state = fit(base, make_examples(base, workload), workload)
        if cuda:
            torch.cuda.synchronize()
        passes, seconds = passes + 1, time.perf_counter() - started
    above = None if loaded is None or peak is None else max(0, peak - loaded)
    return Figures(seconds / passes / workload.users, above, state)


if __name__ == "__main__":
    main()
