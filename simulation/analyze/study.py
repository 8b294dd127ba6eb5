"""Delta-vector study in its folder: users, vectors, figures, report."""

import csv
import io
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from fedperfit.cloud.job.events import OnEvent, Progress, recording
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.paths.check import load_checked
from fedperfit.protocol.model.base_model import BaseModel, read_card
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic, write_json
from fedperfit.protocol.tasks import task_by_name, task_id
from fedperfit.simulation.analyze.findings import describe, final_figures
from fedperfit.simulation.analyze.kept import KeptVectors
from fedperfit.simulation.analyze.page import METRICS, REPORT, write_page
from fedperfit.simulation.analyze.settings import LEAST_USERS, AnalyzeSettings
from fedperfit.simulation.analyze.vectors import TEXTS, UserTexts, delta_vectors, user_texts
from fedperfit.simulation.cluster.cluster import ClusterRequest
from fedperfit.simulation.cluster.folders import everywhere
from fedperfit.simulation.cluster.pool import workers
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.data.participants import participants
from fedperfit.simulation.study_folder import LOCK, check_begun, check_new
from fedperfit.simulation.world.build import WORLD, outdate_world

VECTORS = "vectors"
"""Folder in that of a study: every user's delta-vectors, a folder per task."""
TABLE = "results.csv"
"""File in the folder of a study with all figures."""
_SEED = 0
"""Seed of the random texts."""


class VectorWorker:
    """Worker of a study, with the base model."""

    def __init__(self, base: BaseModel) -> None:
        """Take up the model.

        Args:
            base: The frozen base model.
        """
        self._base = base

    @classmethod
    def loaded(cls, settings: AnalyzeSettings, folder: Path) -> "VectorWorker":
        """Make a worker in another process.

        Args:
            settings: Settings of the study.
            folder: Folder of the worker, which needs none.
        """
        return cls(load_checked(settings.base_model, device=settings.device, dtype=settings.dtype))

    def do(self, payload: UserTexts) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the delta-vectors of a user by kind of text.

        Args:
            payload: The user's questions and texts.
        """
        yield delta_vectors(self._base, payload)


def begin(folder: Path, settings: AnalyzeSettings) -> None:
    """Put a new study into a folder.

    Args:
        folder: Folder of the study, empty or not there.
        settings: Settings of the study.

    Raises:
        InputError: The folder is not empty, or the base model is not there or cannot be asked in that form.
    """
    check_new(folder, resumable=True, beside=WORLD)
    read_card(settings.base_model).check_form(settings.prompt_form)
    folder.mkdir(parents=True, exist_ok=True)
    outdate_world(folder, map(task_id, settings.tasks))
    write_json(folder / SETTINGS, settings.to_flat())


def run_study(folder: Path, on_event: OnEvent, request: ClusterRequest | None = None) -> dict[str, Any]:
    """Run or resume the study of a folder; what is written after each task stays when a later one fails.

    Args:
        folder: Folder of the study, with its settings.
        on_event: Called with every event after it is appended to the folder's events.
        request: Workers on a cluster that do the work; None is this process.

    Returns:
        The metrics, as in metrics.json.

    Raises:
        InputError: Another process works on this study, or data, model or settings do not serve.
    """
    settings = AnalyzeSettings.from_file(check_begun(folder, "study") / SETTINGS)
    try:
        with FileLock(folder / LOCK, timeout=0.2), recording(folder, on_event) as record:
            return _studied(folder, settings, record, request)
    except Timeout:
        raise InputError(f"{folder}: another process is running this study") from None


def _studied(
    folder: Path, settings: AnalyzeSettings, record: Progress, request: ClusterRequest | None
) -> dict[str, Any]:
    record("start", {"run": str(folder)})
    summary: dict[str, Any] = {"tasks": {}}
    people = {
        task.id: participants(task, settings.data, settings.size, folder)
        for task in map(task_by_name, settings.tasks)
    }
    base = load_checked(settings.base_model, device=settings.device, dtype=settings.dtype)
    here = VectorWorker(base)
    make = (lambda place: here) if request is None else partial(VectorWorker.loaded, everywhere(settings))
    with workers(request, make, folder) as hands:
        for name, everyone in people.items():
            context = MethodContext(
                base=base,
                task=everyone.task,
                form=settings.prompt_form,
                seed=_SEED,
                items=ItemCache(base, 0),
                folder=folder,
            )
            users = user_texts(context, everyone.targets, settings.queries, settings.template)
            if len(users) < LEAST_USERS:
                raise InputError(
                    f"{name}: {len(users)} of {len(everyone.targets)} users have a question and an item that "
                    f"fit the context of {base.context} tokens, {LEAST_USERS} are needed"
                )
            kept = KeptVectors(folder / VECTORS / name)
            vectors = {user: known for user in range(len(users)) if (known := kept.read(user)) is not None}
            left = [user for user in range(len(users)) if user not in vectors]
            for user, vector in hands.work(left, users.__getitem__):
                kept.keep(user, vector)
                vectors[user] = vector
                record("work", {"done": len(vectors), "total": len(users), "last": name})
            of_kinds = {
                kind: torch.stack([vectors[user][kind] for user in sorted(vectors)]) for kind in TEXTS
            }
            summary["tasks"][name] = describe(everyone.task, users, of_kinds)
            summary["tasks"][name]["left-out"] = len(everyone.targets) - len(users)
            write_json(folder / METRICS, summary)
            write_atomic(folder / TABLE, _csv(summary).encode())
            write_page(folder, summary, settings)
    record("figures", {"figures": final_figures(summary)})
    record("done", {"report": str(folder / REPORT)})
    return summary


def _csv(summary: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "layer", "text", "quantity", "value", "low", "high"])
    for name, about in summary["tasks"].items():
        for layer, texts in enumerate(about["layers"]):
            for kind, quantities in texts.items():
                writer.writerows([name, layer, kind, *row] for row in _flat(quantities))
    return text.getvalue()


def _flat(quantities: Mapping[str, Any], prefix: str = "") -> Iterator[list[Any]]:
    """Yield quantity, value, low, high; the bounds are empty where there is no interval."""
    for name, value in quantities.items():
        if not isinstance(value, dict):
            yield [prefix + name, value, "", ""]
        elif "value" in value:
            yield [prefix + name, value["value"], value["low"], value["high"]]
        else:
            yield from _flat(value, f"{prefix}{name} ")
