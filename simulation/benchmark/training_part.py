"""Seconds per user of every way of training, on the prompt lengths of each task, beside what they may be."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.table import Table

from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.simulation.benchmark import cost_model
from fedperfit.simulation.benchmark.measure import measure
from fedperfit.simulation.benchmark.model import ModelSpec
from fedperfit.simulation.benchmark.record import Record
from fedperfit.simulation.benchmark.workload import Workload

OURS = "engine"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained."""

    model: ModelSpec
    card: BaseModelCard
    tasks: Sequence[str]
    positions: Sequence[str]
    contenders: Sequence[str]
    users: int
    """Trained side by side by the engine; the others' time per user does not depend on their number."""
    others: int
    """Trained one after another by every other contender."""
    items: int
    epochs: int
    """0: each preset's own."""
    threads: int
    repeats: int

    def workload(self, task: str, positions: str) -> Workload:
        """The engine's users of one task."""
        overrides: dict[str, Any] = {"positions": positions}
        if self.epochs:
            overrides["personal-epochs"] = self.epochs
        return Workload.of_task(task, users=self.users, items=self.items, overrides=overrides)

    @property
    def count(self) -> int:
        """How many measurements there are to take."""
        return len(self.tasks) * len(self.positions) * len(self.contenders) * self.repeats


def run(plan: Plan, record: Record) -> list[dict[str, Any]]:
    """Take every measurement, contenders in turn; returns one row per task and positions."""
    names = [(task, positions) for task in plan.tasks for positions in plan.positions]
    taken: dict[str, list[dict[str, Any]]] = {}
    for repeat in range(plan.repeats):
        for task, positions in names:
            workload = plan.workload(task, positions)
            for contender in plan.contenders:
                mine = workload if contender == OURS else replace(workload, users=plan.others)

                def take(contender: str = contender, mine: Workload = mine) -> dict[str, Any]:
                    return asdict(measure(contender, plan.model, mine, threads=plan.threads))

                name = f"training/{task}/{positions}/{contender}"
                taken.setdefault(name, []).append(record.measure(f"{name}/{repeat}", take))
    return [_row(plan, task, positions, taken) for task, positions in names]


def _row(plan: Plan, task: str, positions: str, taken: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    workload = plan.workload(task, positions)
    job = cost_model.job(workload, plan.card)
    costs = {
        "plain": cost_model.plain(job),
        "pyreft": cost_model.plain(job),
        "lora": cost_model.lora(job),
        "lora-checkpointing": cost_model.lora(job, checkpointing=True),
    }
    best = {name: _best(taken[f"training/{task}/{positions}/{name}"]) for name in plan.contenders}
    ours = best.get(OURS, {}).get("seconds_per_user")
    for name, figures in best.items():
        if name != OURS and ours and "seconds_per_user" in figures:
            figures["speed_up"] = figures["seconds_per_user"] / ours
            figures["bound"] = costs[name] / cost_model.engine(job)
            figures["share_of_bound"] = figures["speed_up"] / figures["bound"]
    return {
        "task": task,
        "positions": positions,
        "epochs": job.epochs,
        "tokens": asdict(workload.lengths),
        "contenders": best,
    }


def _best(repeats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fastest repeat, or the error."""
    fine = [figures for figures in repeats if "error" not in figures]
    return dict(min(fine, key=lambda f: f["seconds_per_user"]) if fine else repeats[0])


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line per contender under each task and positions."""
    found = Table(title="training a personal shift; tokens: shared + own + target")
    for name in ("contender", "s / user", "engine gains", "bound", "of it", "peak MB", "kB kept"):
        found.add_column(name, justify="left" if name == "contender" else "right", no_wrap=True)
    for row in rows:
        tokens = "+".join(str(count) for count in row["tokens"].values())
        found.add_row(f"[bold]{row['task']} {row['positions']}[/bold]", "", tokens, f"{row['epochs']} epochs")
        for name, figures in row["contenders"].items():
            found.add_row(*_cells(name, figures))
        found.add_section()
    return found


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
