"""Results of a comparison, from its cells: metrics.json, a tidy results.csv, LaMP prediction files."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fedperfit.cloud.tracking.figures import flat_figures
from fedperfit.edge.engine.scoring import Sums, score
from fedperfit.protocol.settings.forms import read_form_lines
from fedperfit.protocol.system.errors import MalformedFileError
from fedperfit.protocol.system.files import write_atomic, write_json
from fedperfit.protocol.tasks import Task, task_id
from fedperfit.simulation.compare.cells import COLLECTIVE, HISTORY, MAIN, SEARCH, Line, WorkerState, WorkUnit
from fedperfit.simulation.compare.method import Method
from fedperfit.simulation.compare.search import Trial, best
from fedperfit.simulation.compare.settings import BOOTSTRAP_SAMPLES
from fedperfit.simulation.data.participants import Participants
from fedperfit.simulation.report.bootstrap import LOWER_IS_BETTER, Bootstrap, Phase, Sample
from fedperfit.simulation.world.build import BOTH, Which

METRICS, TABLE, PREDICTIONS = "metrics.json", "results.csv", "predictions"
"""Names of the files and the folder of results."""
REFERENCE = "perfit"
"""Method that all others are compared with."""
PATTERN = (
    ("perfit", "perfit-stage2-cp"),
    ("perfit-stage2-cp", "perfit-stage2-p"),
    ("perfit-stage2-p", "lora-p"),
    ("perfit", "perfit-stage1"),
    ("perfit", "oppu"),
    ("perfit-small", "oppu"),
)
"""Pairs of methods of which the paper finds the first above the second."""


def write_results(state: WorkerState) -> dict[str, Any]:
    """Write all result files of a run folder from the cells that are on file, and return the metrics."""
    settings = state.settings
    summary: dict[str, Any] = {"tasks": {}}
    if state.failed:
        summary["failed"] = [*state.failed.values()]
    rows: list[dict[str, Any]] = []
    for name in map(task_id, settings.tasks):
        people = state.participants(name)
        cells = _TaskCells(state, people)
        if cells.lines:
            summary["tasks"][name] = _task(state, cells)
            rows += cells.tidy()
            _write_predictions(state.folder / PREDICTIONS / name, cells)
    write_json(state.folder / METRICS, summary)
    write_atomic(state.folder / TABLE, _csv(rows).encode())
    return summary


def final_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a comparison, by the path to each, for whoever follows its events."""
    shared = ("rows", "pattern", "bounds", HISTORY, COLLECTIVE)
    tasks = {
        name: {key: about[key] for key in shared if key in about} for name, about in summary["tasks"].items()
    }
    return flat_figures(tasks)


class _TaskCells:
    """Cells of one task that are on file.

    Attributes:
        lines: Lines by method, kind and seed.
    """

    def __init__(self, state: WorkerState, people: Participants) -> None:
        self.people = people
        self.task: Task = people.task
        self.golds = {target.history.name: target.golds for target in people.targets}
        self.lines: dict[tuple[str, str, int], list[Line]] = {}
        for name in rows_of(state, self.task):
            for kind in (MAIN, HISTORY, COLLECTIVE):
                for seed in state.settings.seeds:
                    path = state.folder / WorkUnit(self.task.id, name, kind, seed).file
                    if path.exists():
                        lines = read_form_lines(path, Line)
                        for line in lines:
                            self._check(line, path)
                        self.lines[name, kind, seed] = [line for line in lines if line["user"] in self.golds]

    def _check(self, line: Line, path: Path) -> None:
        questions, answers = len(self.golds.get(line["user"], line["answers"])), len(line["answers"])
        if answers != questions:
            raise MalformedFileError(f"{path}: {answers} answers of {line['user']} to {questions} questions")

    def of(self, method: str, kind: str, size: int | None = None) -> list[Line]:
        """Collect lines of all seeds.

        Args:
            method: The method's name.
            kind: `MAIN`, `HISTORY` or `COLLECTIVE`.
            size: Size of the cells, or None for all sizes.
        """
        return [
            line
            for (name, line_kind, _), lines in self.lines.items()
            if (name, line_kind) == (method, kind)
            for line in lines
            if size is None or line["size"] == size
        ]

    def sample(self, lines: Sequence[Line]) -> Sample:
        """Sum up metrics of each user over seeds."""
        phase: Phase = {}
        for line in lines:
            golds = self.golds[line["user"]]
            sums = score(self.task, line["answers"], golds)
            old = phase.get(line["user"])
            phase[line["user"]] = {
                "items": len(golds) + (old["items"] if old else 0),
                "metrics": _added(old["metrics"], sums) if old else sums,
            }
        return Sample.of(self.task, phase)

    def tidy(self) -> Iterator[dict[str, Any]]:
        """Yield a row per method, seed, kind, size and user."""
        for (method, kind, seed), lines in self.lines.items():
            for line in lines:
                sample = self.sample([line])
                metrics = sample.metrics(np.ones((1, 1)))
                yield {
                    "task": self.task.id,
                    "method": method,
                    "kind": kind,
                    "seed": seed,
                    "size": line["size"],
                    "user": line["user"],
                    "questions": len(line["answers"]),
                    **{key: value for key, value in line.items() if key in _COSTS},
                    **{key: float(value[0]) for key, value in metrics.items() if key != "f1"},
                }


_COSTS = (
    *("items", "parameters", "bytes-down", "bytes-up"),
    *("fit-seconds", "answer-seconds", "peak-bytes"),
)


def rows_of(state: WorkerState, task: Task) -> list[str]:
    """List the methods of the settings that suit the task and did not fail, in the order of the table.

    Args:
        state: State of this process.
        task: Task that is worked on.
    """
    chosen = set(state.settings.methods)
    rows = [name for name, method in state.methods.items() if name in chosen and method.suits(task)]
    return [name for name in rows if not state.is_lost(task.id, name)]


def _added(a: Sums, b: Sums) -> Sums:
    total: Sums = {}
    for key, one in a.items():
        other = b[key]
        if isinstance(one, list) and isinstance(other, list):
            total[key] = [x + y for x, y in zip(one, other, strict=True)]
        elif not isinstance(one, list) and not isinstance(other, list):
            total[key] = one + other
    return total


def _task(state: WorkerState, cells: _TaskCells) -> dict[str, Any]:
    bootstrap = Bootstrap(0, BOOTSTRAP_SAMPLES)
    main = cells.task.metrics[0]
    samples = {
        name: cells.sample(cells.of(name, MAIN))
        for name in rows_of(state, cells.task)
        if cells.of(name, MAIN)
    }
    result: dict[str, Any] = {
        "main": main,
        "lower-is-better": main in LOWER_IS_BETTER,
        "users": len(cells.people.targets),
        "questions": sum(map(len, cells.golds.values())),
        "others": len(cells.people.others),
        "rows": [
            _row(state.methods[name], cells, bootstrap, sample, samples.get(REFERENCE), main)
            for name, sample in samples.items()
        ],
        "pattern": [
            {"above": a, "below": b, **bootstrap.difference(samples[a], samples[b])[main]}
            for a, b in PATTERN
            if a in samples and b in samples
        ],
        HISTORY: _curves(state, cells, bootstrap, HISTORY),
        COLLECTIVE: _curves(state, cells, bootstrap, COLLECTIVE),
        SEARCH: _searches(state, cells.task),
    }
    if cells.people.bounds:
        users = list(cells.golds)
        result["bounds"] = {which: bootstrap.estimates(_bound(cells, users, which)) for which in BOTH}
    return result


def _row(
    method: type[Method],
    cells: _TaskCells,
    bootstrap: Bootstrap,
    sample: Sample,
    reference: Sample | None,
    main: str,
) -> dict[str, Any]:
    lines = cells.of(method.name, MAIN)
    row: dict[str, Any] = {
        "method": method.name,
        "title": method.title,
        "family": method.family.name.lower(),
        "users": len(sample.users),
        "seeds": len({seed for name, kind, seed in cells.lines if (name, kind) == (method.name, MAIN)}),
        "metrics": bootstrap.estimates(sample),
        **{cost: _median(dict(line)[cost] for line in lines) for cost in _COSTS},
    }
    if reference is not None and method.name != REFERENCE:
        row["difference"] = bootstrap.difference(sample, reference)
    if cells.people.bounds:
        unknown, bayes = (_bound(cells, sample.users, which) for which in BOTH)
        if share := bootstrap.share(sample, unknown, bayes, main):
            row["share"] = share
    return row


def _median(values: Iterator[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _bound(cells: _TaskCells, users: Sequence[str], which: Which) -> Sample:
    """Score the world's best possible answers to the questions of these users."""
    phase: Phase = {}
    for user in users:
        answers = cells.people.bounds[user]
        sums = score(cells.task, [a[which] for a in answers], [a["gold"] for a in answers])
        phase[user] = {"items": len(answers), "metrics": sums}
    return Sample.of(cells.task, phase)


def _curves(state: WorkerState, cells: _TaskCells, bootstrap: Bootstrap, kind: str) -> dict[str, list[Any]]:
    """Compute the points of a curve per method; the size of `all others` is their number."""
    curves: dict[str, list[Any]] = {}
    for name in rows_of(state, cells.task):
        sizes = {line["size"] for line in cells.of(name, kind)}
        points = [
            {
                "size": len(cells.people.others) if size < 0 else size,
                "metrics": bootstrap.estimates(cells.sample(cells.of(name, kind, size))),
            }
            for size in sizes
        ]
        if points:
            curves[name] = sorted(points, key=lambda point: int(point["size"]))
    return curves


def _searches(state: WorkerState, task: Task) -> dict[str, Any]:
    searches = {}
    for name in state.methods:
        path = state.folder / WorkUnit(task.id, name, SEARCH, 0).file
        if path.exists() and (log := read_form_lines(path, Trial)):
            chosen = best(log)
            searches[name] = {
                "draws": len(log),
                "chosen": chosen,
                "score": max(line["score"] for line in log),
                "questions": log[0]["questions"],
                "seconds": sum(line["seconds"] for line in log),
            }
    return searches


def _write_predictions(folder: Path, cells: _TaskCells) -> None:
    """Write a LaMP output file per method and seed, and the golds beside them."""
    ids = {target.history.name: target.ids for target in cells.people.targets}
    by_file: dict[str, list[dict[str, str]]] = defaultdict(list)
    for user, golds in cells.golds.items():
        by_file["golds"] += _outputs(ids[user], golds)
    for (method, kind, seed), lines in cells.lines.items():
        if kind == MAIN:
            for line in lines:
                by_file[f"{method}-seed-{seed}"] += _outputs(ids[line["user"]], line["answers"])
    for name, outputs in by_file.items():
        write_json(folder / f"{name}.json", {"task": cells.task.id, "golds": outputs})


def _outputs(ids: Sequence[str], answers: Sequence[str]) -> list[dict[str, str]]:
    return [{"id": one, "output": answer} for one, answer in zip(ids, answers, strict=True)]


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
