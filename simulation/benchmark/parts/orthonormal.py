"""Cost of keeping R's rows orthonormal for one optimizer step: torch's parametrization against ours."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from rich.table import Table
from torch import nn
from torch.nn.utils import parametrizations

from fedperfit.protocol.shift.shift import newton_schulz
from fedperfit.simulation.benchmark.record import Record

HIDDEN_SIZE = 4096
"""Hidden size of a 7B model."""
RANKS = (4, 32)
USERS = 64
"""Users of a slab."""
_REPEATS = 5


def run(threads: int, record: Record) -> list[dict[str, Any]]:
    """Measure torch, ours, and ours per user of a slab, for each rank.

    Args:
        threads: CPU threads.
        record: Measurements on file.
    """
    rows = []
    for rank in RANKS:

        def take(rank: int = rank) -> dict[str, Any]:
            torch.set_num_threads(threads)
            return {
                "torch_ms": _torch(rank),
                "ours_ms": _ours(rank, users=1),
                "ours_in_a_slab_ms": _ours(rank, users=USERS) / USERS,
            }

        rows.append({"rank": rank, **record.measure(f"orthonormal/{rank}", take)})
    return rows


def _torch(rank: int) -> float:
    """Measure forward and backward of `orthogonal`, as a LoReFT intervention runs them in every step."""
    layer = nn.Linear(HIDDEN_SIZE, rank, bias=False)
    parametrizations.orthogonal(layer)
    direction = torch.randn(rank, HIDDEN_SIZE)

    def step() -> None:
        layer.zero_grad()
        (layer.weight * direction).sum().backward()

    return _milliseconds(step)


def _ours(rank: int, *, users: int) -> float:
    """Measure the gradient's projection and the retraction after an AdamW step at the paper's rate."""
    R = torch.linalg.qr(torch.randn(users, HIDDEN_SIZE, rank))[0].mT.contiguous()
    gradient = torch.randn_like(R)
    moved = R - 1e-4 * gradient.sign()

    def step() -> None:
        inner = gradient @ R.mT
        torch.sub(gradient, 0.5 * (inner + inner.mT) @ R)
        newton_schulz(moved)

    return _milliseconds(step)


def _milliseconds(step: Callable[[], None]) -> float:
    times = []
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return 1e3 * median(times[1:])


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Tabulate milliseconds per step by rank."""
    printed = Table(title=f"orthonormal rows, one step, d={HIDDEN_SIZE}")
    for name in ("rank", "torch ms", "ours ms", f"ours per user of {USERS}, ms", "faster"):
        printed.add_column(name, justify="right")
    for row in rows:
        printed.add_row(
            str(row["rank"]),
            f"{row['torch_ms']:.1f}",
            f"{row['ours_ms']:.3f}",
            f"{row['ours_in_a_slab_ms']:.3f}",
            f"{row['torch_ms'] / row['ours_ms']:,.0f}x",
        )
    return printed
