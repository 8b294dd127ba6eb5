"""From the cells of a comparison to its figures: metrics.json, a tidy results.csv, LaMP prediction files."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fedperfit.edge.engine.scoring import Sums, score
from fedperfit.protocol.system.files import read_json_lines, write_atomic, write_json
from fedperfit.protocol.tasks import Task
from fedperfit.simulation.compare.cells import COLLECTIVE, HISTORY, MAIN, SEARCH, WorkerState, WorkUnit
from fedperfit.simulation.compare.method import Method
from fedperfit.simulation.compare.search import best
from fedperfit.simulation.compare.settings import BOOTSTRAP_SAMPLES
from fedperfit.simulation.data.participants import Participants
from fedperfit.simulation.report.bootstrap import LOWER_IS_BETTER, Bootstrap, Phase, Sample
from fedperfit.simulation.report.bootstrap import MAIN as MAIN_METRIC

METRICS, TABLE, PREDICTIONS = "metrics.json", "results.csv", "predictions"
REFERENCE = "perfit"
"""The method all others are compared with."""
PATTERN = (
    ("perfit", "perfit-stage2-cp"),
    ("perfit-stage2-cp", "perfit-stage2-p"),
    ("perfit-stage2-p", "lora-p"),
    ("perfit", "perfit-stage1"),
    ("perfit", "oppu"),
    ("perfit-small", "oppu"),
)
"""What the paper finds: the first of each pair above the second."""

Line = Mapping[str, Any]


def write_results(state: WorkerState) -> dict[str, Any]:
    """Write all result files of a run folder from the cells that are there; returns the metrics."""
    settings = state.settings
    summary: dict[str, Any] = {"tasks": {}}
    rows: list[dict[str, Any]] = []
    for name in settings.tasks:
        people = state.participants(name)
        found = _Found(state, people)
        if found.lines:
            summary["tasks"][name] = _task(state, found)
            rows += found.tidy()
            _write_predictions(state.folder / PREDICTIONS / name, found)
    write_json(state.folder / METRICS, summary)
    write_atomic(state.folder / TABLE, _csv(rows).encode())
    return summary


class _Found:
    """The cells of one task that are on file."""

    def __init__(self, state: WorkerState, people: Participants) -> None:
        self.people = people
        self.task: Task = people.task
        self.golds = {target.history.name: target.golds for target in people.targets}
        self.lines: dict[tuple[str, str, int], list[Line]] = {}
        """By method, kind and seed."""
        for name in rows_of(state, self.task):
            for kind in (MAIN, HISTORY, COLLECTIVE):
                for seed in state.settings.seeds:
                    path = state.folder / WorkUnit(self.task.name, name, kind, seed).file
                    if path.exists():
                        lines = [line for line in read_json_lines(path) if line["user"] in self.golds]
                        self.lines[name, kind, seed] = lines

    def of(self, method: str, kind: str, size: int | None = None) -> list[Line]:
        """The lines of all seeds."""
        return [
            line
            for (name, found, _), lines in self.lines.items()
            if (name, found) == (method, kind)
            for line in lines
            if size is None or line["size"] == size
        ]

    def sample(self, lines: Sequence[Line]) -> Sample:
        """Metric sums of each user, added up over seeds."""
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
        """One row per method, seed, kind, size and user."""
        for (method, kind, seed), lines in self.lines.items():
            for line in lines:
                sample = self.sample([line])
                metrics = sample.metrics(np.ones((1, 1)))
                yield {
                    "task": self.task.name,
                    "method": method,
                    "kind": kind,
                    "seed": seed,
                    "size": line["size"],
                    "user": line["user"],
                    "questions": len(line["answers"]),
                    **{key: line[key] for key in _COSTS},
                    **{key: float(value[0]) for key, value in metrics.items() if key != "f1"},
                }


_COSTS = (
    *("items", "parameters", "bytes-down", "bytes-up"),
    *("fit-seconds", "answer-seconds", "peak-bytes"),
)


def rows_of(state: WorkerState, task: Task) -> list[str]:
    """The methods asked for that suit the task, in the order of the table."""
    asked = set(state.settings.methods)
    return [name for name, method in state.methods.items() if name in asked and method.suits(task)]


def _added(a: Sums, b: Sums) -> Sums:
    total: Sums = {}
    for key, one in a.items():
        other = b[key]
        if isinstance(one, list) and isinstance(other, list):
            total[key] = [x + y for x, y in zip(one, other, strict=True)]
        elif not isinstance(one, list) and not isinstance(other, list):
            total[key] = one + other
    return total


def _task(state: WorkerState, found: _Found) -> dict[str, Any]:
    bootstrap = Bootstrap(0, BOOTSTRAP_SAMPLES)
    main = MAIN_METRIC[found.task.kind]
    samples = {
        name: found.sample(found.of(name, MAIN))
        for name in rows_of(state, found.task)
        if found.of(name, MAIN)
    }
    result: dict[str, Any] = {
        "main": main,
        "lower-is-better": main in LOWER_IS_BETTER,
        "users": len(found.people.targets),
        "questions": sum(map(len, found.golds.values())),
        "others": len(found.people.others),
        "rows": [
            _row(state.methods[name], found, bootstrap, sample, samples.get(REFERENCE), main)
            for name, sample in samples.items()
        ],
        "pattern": [
            {"above": a, "below": b, **bootstrap.difference(samples[a], samples[b])[main]}
            for a, b in PATTERN
            if a in samples and b in samples
        ],
        HISTORY: _curves(state, found, bootstrap, HISTORY),
        COLLECTIVE: _curves(state, found, bootstrap, COLLECTIVE),
        SEARCH: _searches(state, found.task),
    }
    if found.people.bounds:
        users = list(found.golds)
        result["bounds"] = {
            which: bootstrap.estimates(_bound(found, users, which)) for which in ("unknown", "bayes")
        }
    return result


def _row(
    method: type[Method],
    found: _Found,
    bootstrap: Bootstrap,
    sample: Sample,
    reference: Sample | None,
    main: str,
) -> dict[str, Any]:
    lines = found.of(method.name, MAIN)
    row: dict[str, Any] = {
        "method": method.name,
        "title": method.title,
        "family": method.family.name.lower(),
        "users": len(sample.users),
        "seeds": len({seed for name, kind, seed in found.lines if (name, kind) == (method.name, MAIN)}),
        "metrics": bootstrap.estimates(sample),
        **{cost: _median(line[cost] for line in lines) for cost in _COSTS},
    }
    if reference is not None and method.name != REFERENCE:
        row["difference"] = bootstrap.difference(sample, reference)
    if found.people.bounds:
        unknown, bayes = (_bound(found, sample.users, which) for which in ("unknown", "bayes"))
        if share := bootstrap.share(sample, unknown, bayes, main):
            row["share"] = share
    return row


def _median(values: Iterator[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _bound(found: _Found, users: Sequence[str], which: str) -> Sample:
    """Of the world's best possible answers, on the questions these users are asked."""
    phase: Phase = {}
    for user in users:
        answers = found.people.bounds[user]
        sums = score(found.task, [a[which] for a in answers], [a["gold"] for a in answers])
        phase[user] = {"items": len(answers), "metrics": sums}
    return Sample.of(found.task, phase)


def _curves(state: WorkerState, found: _Found, bootstrap: Bootstrap, kind: str) -> dict[str, list[Any]]:
    """Per method the points of a curve; the size of `all others` is their number."""
    curves: dict[str, list[Any]] = {}
    for name in rows_of(state, found.task):
        sizes = {line["size"] for line in found.of(name, kind)}
        points = [
            {
                "size": len(found.people.others) if size < 0 else size,
                "metrics": bootstrap.estimates(found.sample(found.of(name, kind, size))),
            }
            for size in sizes
        ]
        if points:
            curves[name] = sorted(points, key=lambda point: int(point["size"]))
    return curves


def _searches(state: WorkerState, task: Task) -> dict[str, Any]:
    searches = {}
    for name in state.methods:
        path = state.folder / WorkUnit(task.name, name, SEARCH, 0).file
        if path.exists() and (log := read_json_lines(path)):
            chosen = best(log)
            searches[name] = {
                "draws": len(log),
                "chosen": chosen,
                "score": max(line["score"] for line in log),
                "questions": log[0]["questions"],
                "seconds": sum(line["seconds"] for line in log),
            }
    return searches


def _write_predictions(folder: Path, found: _Found) -> None:
    """One LaMP output file per method and seed, and the golds beside them."""
    ids = {target.history.name: target.ids for target in found.people.targets}
    by_file: dict[str, list[dict[str, str]]] = defaultdict(list)
    for user, golds in found.golds.items():
        by_file["golds"] += _outputs(ids[user], golds)
    for (method, kind, seed), lines in found.lines.items():
        if kind == MAIN:
            for line in lines:
                by_file[f"{method}-seed-{seed}"] += _outputs(ids[line["user"]], line["answers"])
    for name, outputs in by_file.items():
        write_json(folder / f"{name}.json", {"task": found.task.name, "golds": outputs})


def _outputs(ids: Sequence[str], answers: Sequence[str]) -> list[dict[str, str]]:
    return [{"id": one, "output": answer} for one, answer in zip(ids, answers, strict=True)]


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
