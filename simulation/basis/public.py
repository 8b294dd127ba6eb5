"""A public basis: the gradients and the states that public items make in the base model.

The items are the world's population, whose users take part in nothing else, or an operator's own. Every group
of items stands for one person, whose gradient is one of those that R follows.
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.edge.agent.history import admit_part
from fedperfit.edge.engine.layer_gradients import layer_gradient, state_moments
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.shift.basis_sources import public_basis
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import json_lines, read_json
from fedperfit.protocol.tasks import Pair, task_by_name
from fedperfit.simulation.world.build import population_pairs

logger = logging.getLogger("fedperfit.simulation")

PAIRS = 384
"""Public pairs that a basis is made of, at most."""
GROUP = 16
"""Pairs of one gradient."""


def make_basis(base: BaseModel, settings: JobSettings, pairs: Sequence[Pair]) -> Basis:
    """Make the basis that public pairs show.

    Args:
        base: The base model.
        settings: Task, shape and columns of the updates, with layers and ranks chosen.
        pairs: Public training pairs; groups of `GROUP` are one person's.

    Raises:
        InputError: Without pairs, or if the settings do not fit the model.
    """
    if not pairs:
        raise InputError("a public basis needs items")
    shape = settings.shape(base.card)
    groups = [pairs[start : start + GROUP] for start in range(0, len(pairs), GROUP)]
    gradients = [layer_gradient(base, group, shape.positions, settings.batch_size) for group in groups]
    return public_basis(
        gradients,
        state_moments(base, pairs, shape.positions, shape.layers, settings.batch_size),
        shape,
        settings.update_columns,
        task=settings.task_id,
        fingerprint=base.card.fingerprint,
        seed=settings.seed,
    )


def world_pairs(settings: JobSettings) -> list[Pair]:
    """Draw pairs of the world's population; raises InputError for a task that the world does not have."""
    drawn = population_pairs(task_by_name(settings.task), settings.seed, items_per_user=GROUP)
    return [pair for pair, _ in islice(drawn, PAIRS)]


def pairs_of_file(path: Path, settings: JobSettings) -> list[Pair]:
    """Read an operator's items; a bad one costs itself alone, and is told in the log.

    Args:
        path: JSON list of items as LaMP's profiles or a history hold them, one person after another; one per
            line where the file's name has `.jsonl`.
        settings: Task and form of the prompts.

    Raises:
        InputError: Naming the file, if it is missing or no list, or no item of it can be used.
    """
    task = task_by_name(settings.task)
    values = json_lines(path) if ".jsonl" in path.suffixes else _listed(path)
    items = islice(admit_part(task, "history", values, f"{path}, item", logger.warning), PAIRS)
    pairs = [task.item_pair(item, settings.prompt_form) for item in items]
    if not pairs:
        raise InputError(f"{path}: no item of {task.id} that can be used")
    return pairs


def _listed(path: Path) -> Iterator[tuple[int, Any]]:
    items = read_json(path)
    if not isinstance(items, list):
        raise InputError(f"{path}: expected a JSON list of items")
    return enumerate(items, start=1)
