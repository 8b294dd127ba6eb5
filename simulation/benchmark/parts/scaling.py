"""Scaling with the number of users: cost per user, and memory, which is that of the users in flight."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from fedperfit.simulation.benchmark.measure import measure
from fedperfit.simulation.benchmark.model import ModelSpec
from fedperfit.simulation.benchmark.record import Record
from fedperfit.simulation.benchmark.workload import Lengths, Workload
from fedperfit.simulation.run.settings import RunSettings

MODEL = ModelSpec(layers=6, hidden_size=64, heads=4, vocabulary=512)
"""Small model, so that ten thousand users take minutes."""
LENGTHS = Lengths(shared=16, field=24, target=3)
"""Tokens of every item."""
ITEMS = 4
"""History items of each user."""
REPEATS = 3
"""Measurements of each number of users, of which the median counts."""
_FLAT_FROM = 100


def run(users: Sequence[int], threads: int, record: Record) -> list[dict[str, Any]]:
    """Measure each number of users in processes of their own.

    Args:
        users: Numbers of users.
        threads: CPU threads.
        record: Measurements on file.
    """
    settings = RunSettings.read("movie_tagging", {"positions": "l7"})
    taken: dict[int, list[dict[str, Any]]] = {number: [] for number in users}
    for repeat in range(REPEATS):
        for number in users:
            workload = Workload(lengths=LENGTHS, users=number, items=ITEMS, settings=settings)

            def take(workload: Workload = workload) -> dict[str, Any]:
                return asdict(measure("engine", MODEL, workload, threads=threads))

            taken[number].append(record.measure(f"scaling/{number}/{repeat}", take))
    return [{"users": number, **_median(repeats)} for number, repeats in taken.items()]


def _median(repeats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    broken = [figures for figures in repeats if "error" in figures]
    by_cost = sorted(repeats, key=lambda figures: figures.get("seconds_per_user", 0))
    return broken[0] if broken else by_cost[len(by_cost) // 2]


def spread(rows: Sequence[dict[str, Any]]) -> float | None:
    """Return the largest cost per user as a multiple of the smallest, from a hundred users on."""
    costs = [row["seconds_per_user"] for row in rows if row["users"] >= _FLAT_FROM and "error" not in row]
    return max(costs) / min(costs) if len(costs) > 1 else None


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Tabulate milliseconds per user and memory by number of users."""
    widest = spread(rows)
    caption = "" if widest is None else f"dearest / cheapest from {_FLAT_FROM} users on: {widest:.2f}"
    title = f"scaling: {MODEL.layers} layers, d={MODEL.hidden_size}, {ITEMS} items per user"
    printed = Table(title=title, caption=caption, min_width=len(title))
    for name in ("users", "ms per user", "peak MB"):
        printed.add_column(name, justify="right")
    for row in rows:
        if "error" in row:
            printed.add_row(f"{row['users']:,}", row["error"])
            continue
        peak, cost = row["peak_bytes"], f"{1e3 * row['seconds_per_user']:.1f}"
        printed.add_row(f"{row['users']:,}", cost, "—" if peak is None else f"{peak / 1e6:.0f}")
    return printed
