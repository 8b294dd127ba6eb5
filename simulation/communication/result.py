"""Results of a study from its units: every row's score beside the bytes that it took."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fedperfit.cloud.tracking.figures import flat_figures
from fedperfit.edge.engine.scoring import score
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.tasks import task_by_name, task_id
from fedperfit.simulation.communication.ground import Ground
from fedperfit.simulation.communication.row import Row
from fedperfit.simulation.communication.settings import CommunicationSettings
from fedperfit.simulation.communication.units import SEED, Training, Unit, read_draw
from fedperfit.simulation.data.participants import Participants
from fedperfit.simulation.report.bootstrap import LOWER_IS_BETTER, Bootstrap, Phase, Sample
from fedperfit.simulation.world.build import BOTH, Which

RESULTS = "results.json"
"""File in the folder of a study."""
FORMAT = 1
"""Number of the file's format."""
SOCKETS = "not measured: rounds ran in one process, through Flower's serialisation and no socket"
"""What is said of bytes at sockets."""


def results_of(folder: Path, ground: Ground, rows: Mapping[str, type[Row]]) -> dict[str, Any]:
    """Return the figures of all rows that are finished, as in results.json.

    Args:
        folder: Folder of the study.
        ground: People and settings.
        rows: Rows by name.
    """
    settings = ground.settings
    return {
        "format": FORMAT,
        "settings": settings.to_flat(),
        "socket-bytes": SOCKETS,
        "tasks": {task: _task(folder, ground, rows, task) for task in map(task_id, settings.tasks)},
    }


def final_figures(results: Mapping[str, Any]) -> dict[str, float]:
    """Return scores and bytes of every row, by the path to each, for whoever follows the study's events."""
    shared = ("metrics", "difference", "traffic")
    return flat_figures(
        {
            f"{task} {name}": {key: row[key] for key in shared if key in row}
            for task, about in results["tasks"].items()
            for name, row in about["rows"].items()
        }
    )


def _task(folder: Path, ground: Ground, rows: Mapping[str, type[Row]], name: str) -> dict[str, Any]:
    settings, people = ground.settings, ground.people(name)
    bootstrap = Bootstrap(0, settings.bootstrap_samples)
    trained = {row: _trained(folder, settings, name, row) for row in rows}
    samples = {row: _pooled(people, units) for row, units in trained.items() if units}
    main = people.task.metrics[0]
    result = {
        "main": main,
        "lower-is-better": main in LOWER_IS_BETTER,
        "users": len(people.targets),
        "questions": sum(len(target.questions) for target in people.targets),
        "others": len(people.others),
        "rows": {
            row: {
                "title": rows[row].title,
                "family": rows[row].family.value,
                "reference": rows[row].reference,
                "seeds": len(trained[row]),
                "metrics": bootstrap.estimates(sample),
                **_beside(bootstrap, sample, samples.get(rows[row].reference)),
                **_shape(rows[row], settings),
                "traffic": trained[row][0]["traffic"],
                "search": _search(folder, settings, name, row) if rows[row].searched else None,
                "seconds": sum(unit["seconds"] for unit in trained[row]) / len(trained[row]),
            }
            for row, sample in samples.items()
        },
    }
    if people.bounds:
        result["bounds"] = {which: bootstrap.estimates(_bound(people, which)) for which in BOTH}
    return result


def _trained(folder: Path, settings: CommunicationSettings, task: str, row: str) -> list[Training]:
    """Return the trainings of a row that are on file, one for each seed."""
    paths = [folder / Unit(task, row, SEED, seed).file for seed in settings.seeds]
    return [read_form(path, Training) for path in paths if path.exists()]


def _pooled(people: Participants, units: Sequence[Training]) -> Sample:
    """Pool the metric sums of every person over seeds."""
    samples = [Sample.of(people.task, unit["people"]) for unit in units]
    return Sample(people.task, samples[0].users, np.sum([sample.sums for sample in samples], axis=0))


def _beside(bootstrap: Bootstrap, sample: Sample, reference: Sample | None) -> dict[str, Any]:
    if reference is None or reference is sample:
        return {}
    return {"difference": bootstrap.difference(sample, reference)}


def _shape(row: type[Row], settings: CommunicationSettings) -> dict[str, int]:
    rounds = max(1, settings.rounds // row.fewer_rounds)
    return {"rounds": rounds, "epochs": max(1, settings.rounds // rounds)}


def _search(folder: Path, settings: CommunicationSettings, task: str, row: str) -> dict[str, Any]:
    log = [read_draw(folder, task, row, number) for number in range(settings.draws)]
    chosen = read_form(folder / Unit(task, row, SEED, settings.seeds[0]).file, Training)["rates"]
    order = sorted(draw["rates"].shared for draw in log)
    return {
        "tried": [asdict(draw["rates"]) | {"score": draw["score"]} for draw in log],
        "questions": log[0]["questions"],
        "chosen": asdict(chosen),
        "at-the-edge": len(order) > 1 and chosen.shared in (order[0], order[-1]),
    }


def _bound(people: Participants, which: Which) -> Sample:
    """Score the world's best possible answers, with or without knowledge of the user."""
    task, phase = task_by_name(people.task.id), Phase()
    for target in people.targets:
        answers = people.bounds[target.history.name]
        sums = score(task, [a[which] for a in answers], [a["gold"] for a in answers])
        phase[target.history.name] = {"items": len(answers), "metrics": sums}
    return Sample.of(task, phase)
