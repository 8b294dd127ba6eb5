"""Figures of a run folder: metrics with intervals, curves, bytes and bounds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedperfit.cloud.job.settings import SELECTION, SETTINGS, Choice, read_settled
from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.cloud.tracking.figures import flat_figures
from fedperfit.edge.engine.scoring import score
from fedperfit.protocol.messages.settings import Stage
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.tasks import Task, task_by_name
from fedperfit.simulation.report.bootstrap import LOWER_IS_BETTER, Bootstrap, Phase, Sample
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.world.build import BOTH, BOUNDS, LIMIT, Bounds, Which, read_bounds, read_limits

METRICS = "metrics.json"
"""File in the run folder with the figures."""
HISTORY = "history-"
"""What the names of the phases of the cold-start curve begin with, before the number of items."""


def summarise(folder: Path) -> dict[str, Any]:
    """Compute all figures of a run folder, as JSON values; phases that are missing are left out.

    Raises:
        InputError: It is the folder of a comparison or an analysis, or a file in it is broken.
    """
    settings = run_settings(folder)

    from fedperfit.protocol.trust.published import FILE_NAME
    from fedperfit.protocol.trust.release_file import read_release
    from fedperfit.simulation.run.communication import communication

    task = task_by_name(settings.task)
    bootstrap = Bootstrap(settings.seed, settings.bootstrap_samples)
    main = task.metrics[0]
    samples = read_samples(folder, task)
    stages = {stage.value: samples[f"evaluate-{stage}"] for stage in Stage if f"evaluate-{stage}" in samples}
    summary: dict[str, Any] = {
        "task": task.id,
        "main": main,
        "lower-is-better": main in LOWER_IS_BETTER,
        "stages": {stage: _stage(bootstrap, sample) for stage, sample in stages.items()},
        "differences": {
            f"{a}-{b}": bootstrap.difference(stages[a], stages[b])
            for a, b in (("personal", "collective"), ("collective", "base"), ("personal", "base"))
            if a in stages and b in stages
        },
        "users": _users(stages, main),
        "history": _curve(bootstrap, samples, HISTORY, f"{HISTORY}0"),
        "collective": _collective_curve(bootstrap, samples),
        "rounds": _rounds(folder / "rounds.json"),
        "communication": communication(folder, settings),
        "places": read_form(folder / SELECTION, Choice) if (folder / SELECTION).exists() else {},
    }
    if times := _time_curve(bootstrap, samples, summary["rounds"]):
        summary["time"] = times
    if (folder / FILE_NAME).exists() and (promise := read_release(folder / FILE_NAME).promise):
        summary["privacy"] = promise
    if bounds := _bounds_of(folder, samples):
        summary |= _world(bootstrap, task, bounds, stages, samples, main)
        _add_limit(bootstrap, limit_samples(folder, task, samples), summary["history"], samples, main)
    return summary


def run_settings(folder: Path) -> RunSettings:
    """Read the settings of a run folder, with what was chosen for those that are `auto`.

    Raises:
        InputError: It is the folder of another command, e.g. a comparison, or the settings are broken.
    """
    values = read_settled(folder)
    foreign = sorted(values.keys() - RunSettings.setting_keys())
    if "task" not in values:
        raise InputError(
            f"{folder}: no run of `simulate`; comparisons and analyses write their own report.html"
        )
    if foreign:
        raise InputError(
            f"{folder}: no run of `simulate`: {SETTINGS} there sets {foreign[0]!r}, which only another "
            "command or another version knows"
        )
    try:
        return RunSettings.from_flat(values)
    except InputError as error:
        raise InputError(f"{folder / SETTINGS}: {error}") from None


def _users(stages: Mapping[str, Sample], main: str) -> dict[str, dict[str, float]]:
    """Score each user in each stage; who was dropped from a stage is left out."""
    scores = {
        stage: dict(
            zip(sample.users, map(float, sample.metrics(np.eye(len(sample.users)))[main]), strict=True)
        )
        for stage, sample in stages.items()
    }
    everybody = set.intersection(*map(set, scores.values())) if scores else set()
    return {user: {stage: of[user] for stage, of in scores.items()} for user in sorted(everybody)}


def read_samples(folder: Path, task: Task) -> dict[str, Sample]:
    """Read the metric sums of a run folder by phase, of phases in which answers were scored.

    Args:
        folder: The run folder.
        task: Task that was worked on.

    Raises:
        InputError: Naming a file that does not hold such sums.
    """
    samples = {
        path.stem: _sample(task, path)
        for path in sorted((folder / "results").glob("*.json"))
        if not path.stem.startswith("personalize") and not path.stem.endswith("-fit")
    }
    return {phase: sample for phase, sample in samples.items() if sample.users}


def limit_samples(folder: Path, task: Task, samples: Mapping[str, Sample]) -> dict[str, Sample]:
    """Compute the sums of the best possible answers after so many items, by phase of the cold-start curve.

    Args:
        folder: The run folder; of a run on other data than the world there are none.
        task: Task that was worked on.
        samples: What `read_samples` returned.

    Raises:
        InputError: Naming a file that does not hold such answers.
    """
    bounds, reached = _bounds_of(folder, samples), {}
    limit = read_limits(folder) if bounds else {}
    for name, sample in samples.items():
        length = name.removeprefix(HISTORY)
        if name.startswith(HISTORY) and all(length in limit.get(user, {}) for user in sample.users):
            phase: Phase = {}
            for user in sample.users:
                golds = [answer["gold"] for answer in bounds[user]]
                if len(limit[user][length]) != len(golds):
                    raise InputError(f"{folder / LIMIT}: {user}/{length}: not one answer per question")
                phase[user] = {"items": len(golds), "metrics": score(task, limit[user][length], golds)}
            reached[name] = Sample.of(task, phase)
    return reached


def _sample(task: Task, path: Path) -> Sample:
    phase = read_form(path, Phase)
    try:
        return Sample.of(task, phase)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _bounds_of(folder: Path, samples: Mapping[str, Sample]) -> Bounds:
    """Read the bounds of a run folder, which must be there for all users or for nobody."""
    bounds = read_bounds(folder)
    for user in (user for sample in samples.values() for user in sample.users):
        if bounds and user not in bounds:
            raise InputError(f"{folder / BOUNDS}: lacks the answers to {user}'s questions")
    return bounds


def _rounds(path: Path) -> list[dict[str, Any]]:
    return [report.to_json() for report in read_form(path, list[RoundReport])] if path.exists() else []


def _stage(bootstrap: Bootstrap, sample: Sample) -> dict[str, Any]:
    items = int(sample.sums[:, 0].sum())
    return {"users": len(sample.users), "questions": items, "metrics": bootstrap.estimates(sample)}


def _curve(
    bootstrap: Bootstrap, samples: dict[str, Sample], prefix: str, origin: str
) -> list[dict[str, Any]]:
    points = []
    for phase, sample in samples.items():
        size = phase.removeprefix(prefix)
        if phase.startswith(prefix) and size.isdigit():
            point = {"size": int(size), "metrics": bootstrap.estimates(sample)}
            if origin in samples:
                point["difference"] = bootstrap.difference(sample, samples[origin])
            points.append(point)
    return sorted(points, key=lambda point: int(str(point["size"])))


def _collective_curve(bootstrap: Bootstrap, samples: dict[str, Sample]) -> list[dict[str, Any]]:
    points = _curve(bootstrap, samples, "collective-", "")
    for point in points:
        alone, above = (samples.get(f"collective-{point['size']}{end}") for end in ("", "-personal"))
        if alone is not None and above is not None:
            point["personal"] = bootstrap.estimates(above)
            point["difference"] = bootstrap.difference(above, alone)
    return points


def _time_curve(
    bootstrap: Bootstrap, samples: dict[str, Sample], rounds: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Compute the scores of the collective shift after rounds, each with the simulated seconds until then."""
    ended = {0: 0.0} | {report["round"]: report["seconds"] for report in rounds if "seconds" in report}
    return [
        {"round": point["size"], "seconds": ended[point["size"]], "metrics": point["metrics"]}
        for point in _curve(bootstrap, samples, "time-", "")
        if point["size"] in ended
    ]


def _world(
    bootstrap: Bootstrap,
    task: Task,
    bounds: Bounds,
    stages: dict[str, Sample],
    samples: dict[str, Sample],
    main: str,
) -> dict[str, Any]:
    """Compute bounds of the evaluated users, and the share of the possible gain that was recovered."""
    result: dict[str, Any] = {"bounds": {}, "share": {}}
    for name, sample in (*stages.items(), ("history", samples.get("history-0"))):
        if sample is None:
            continue
        unknown, bayes = (_bound(task, bounds, sample.users, which) for which in BOTH)
        group = "newcomers" if name == "history" else "targets"
        result["bounds"][group] = {
            "unknown": bootstrap.estimates(unknown),
            "bayes": bootstrap.estimates(bayes),
        }
        if group == "targets" and (share := bootstrap.share(sample, unknown, bayes, main)):
            result["share"][name] = share
    return result


def _add_limit(
    bootstrap: Bootstrap,
    limits: Mapping[str, Sample],
    points: list[dict[str, Any]],
    samples: dict[str, Sample],
    main: str,
) -> None:
    """Put into the points of the cold-start curve what no method can beat after so many items.

    The share is that of the way from the collective shift alone to there.
    """
    for point in points:
        name = f"{HISTORY}{point['size']}"
        if name not in limits:
            continue
        sample, reached, alone = samples[name], limits[name], samples.get(f"{HISTORY}0")
        point["limit"] = bootstrap.estimates(reached)
        if point["size"] and alone is not None and alone.users == sample.users:
            point["share"] = bootstrap.share(sample, alone, reached, main)


def _bound(task: Task, bounds: Bounds, users: list[str], which: Which) -> Sample:
    phase: Phase = {}
    for user in users:
        answers = bounds[user]
        sums = score(task, [a[which] for a in answers], [a["gold"] for a in answers])
        phase[user] = {"items": len(answers), "metrics": sums}
    return Sample.of(task, phase)


def final_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a run, by the path to each, for whoever follows its events.

    Args:
        summary: The figures, as in metrics.json; those of single users and rounds are left out.
    """
    shared = ("stages", "differences", "bounds", "share", "history", "collective")
    figures = {key: summary[key] for key in shared if key in summary}
    sent = {key: summary["communication"].get(key) for key in ("payload-down", "payload-up")}
    return flat_figures(figures | {"bytes": sent})


def write_metrics(folder: Path) -> None:
    """Write the figures of a run folder to its `metrics.json`."""
    write_json(folder / METRICS, summarise(folder))
