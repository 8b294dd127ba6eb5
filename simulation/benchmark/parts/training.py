"""Seconds per user of every contender, on the prompt lengths of each task, beside the bound on the gain."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.table import Table

from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.system.errors import count_of
from fedperfit.simulation.benchmark import cost_model
from fedperfit.simulation.benchmark.measure import measure
from fedperfit.simulation.benchmark.model import ModelSpec
from fedperfit.simulation.benchmark.record import Record
from fedperfit.simulation.benchmark.workload import Workload

OURS = "engine"
"""Contender that the others are compared with."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Measurements of the training part."""

    model: ModelSpec
    card: BaseModelCard
    tasks: Sequence[str]
    positions: Sequence[str]
    contenders: Sequence[str]
    users: int
    """Users that the engine trains side by side; the other contenders' time per user does not depend on
    their number.
    """
    others: int
    """Users that every other contender trains, one after another."""
    items: int
    """History items of each user."""
    epochs: int
    """Passes over the items; 0 takes each preset's own."""
    threads: int
    repeats: int
    """Measurements of each training, of which the fastest counts."""

    def workload(self, task: str, positions: str) -> Workload:
        """Return the engine's users of one task.

        Args:
            task: LaMP task.
            positions: Shifted positions.
        """
        overrides: dict[str, Any] = {"positions": positions}
        if self.epochs:
            overrides["personal-epochs"] = self.epochs
        return Workload.of_task(task, users=self.users, items=self.items, overrides=overrides)

    @property
    def count(self) -> int:
        """Number of measurements to take."""
        return len(self.tasks) * len(self.positions) * len(self.contenders) * self.repeats


def run(plan: TrainingPlan, record: Record) -> list[dict[str, Any]]:
    """Take every measurement, contenders in turn.

    Args:
        plan: The measurements.
        record: Measurements on file.

    Returns:
        A row per task and positions.
    """
    names = [(task, positions) for task in plan.tasks for positions in plan.positions]
    taken: dict[str, list[dict[str, Any]]] = {}
    for repeat in range(plan.repeats):
        for task, positions in names:
            workload = plan.workload(task, positions)
            for contender in plan.contenders:
                own = workload if contender == OURS else replace(workload, users=plan.others)

                def take(contender: str = contender, own: Workload = own) -> dict[str, Any]:
                    return asdict(measure(contender, plan.model, own, threads=plan.threads))

                name = f"training/{task}/{positions}/{contender}"
                taken.setdefault(name, []).append(record.measure(f"{name}/{repeat}", take))
    return [_row(plan, task, positions, taken) for task, positions in names]


def _row(
    plan: TrainingPlan, task: str, positions: str, taken: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    workload = plan.workload(task, positions)
    load = cost_model.load_of(workload, plan.card)
    costs = {
        "plain": cost_model.plain(load),
        "pyreft": cost_model.plain(load),
        "lora": cost_model.lora(load),
        "lora-checkpointing": cost_model.lora(load, checkpointing=True),
    }
    best = {name: _best(taken[f"training/{task}/{positions}/{name}"]) for name in plan.contenders}
    ours = best.get(OURS, {}).get("seconds_per_user")
    for name, figures in best.items():
        if name != OURS and ours and "seconds_per_user" in figures:
            figures["speed_up"] = figures["seconds_per_user"] / ours
            figures["bound"] = costs[name] / cost_model.engine(load)
            figures["share_of_bound"] = figures["speed_up"] / figures["bound"]
    return {
        "task": task,
        "positions": positions,
        "epochs": load.epochs,
        "tokens": asdict(workload.lengths),
        "contenders": best,
    }


def _best(repeats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the fastest repeat, or the error."""
    measured = [figures for figures in repeats if "error" not in figures]
    return dict(min(measured, key=lambda f: f["seconds_per_user"]) if measured else repeats[0])


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Tabulate each contender under each task and positions."""
    printed = Table(title="training a personal shift; tokens: shared + own + target")
    for name in ("contender", "s / user", "engine gains", "bound", "of it", "peak MB", "kB kept"):
        printed.add_column(name, justify="left" if name == "contender" else "right", no_wrap=True)
    for row in rows:
        tokens = "+".join(str(count) for count in row["tokens"].values())
        printed.add_row(
            f"[bold]{row['task']} {row['positions']}[/bold]", "", tokens, count_of(row["epochs"], "epoch")
        )
        for contender, figures in row["contenders"].items():
            printed.add_row(*_cells(contender, figures))
        printed.add_section()
    return printed


def _cells(name: str, figures: dict[str, Any]) -> list[str]:
    if "error" in figures:
        return [name, "—", "[dim]not measured[/dim]"]
    cells = [name, f"{figures['seconds_per_user']:.2f}", "", "", ""]
    if "speed_up" in figures:
        cells[2:] = [
            f"{figures['speed_up']:.2f}x",
            f"{figures['bound']:.2f}x",
            f"{figures['share_of_bound']:.0%}",
        ]
    peak = figures["peak_bytes"]
    return [*cells, "—" if peak is None else f"{peak / 1e6:.0f}", f"{figures['state_bytes'] / 1e3:.0f}"]
