"""Participants of a study: others, of whom some validate, and targets with held-out questions."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedperfit.edge.agent.history import History
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import from_home
from fedperfit.protocol.tasks import Task
from fedperfit.protocol.tasks.metrics import own_metric, own_metrics
from fedperfit.simulation.data.lamp import LampData, User, open_lamp
from fedperfit.simulation.data.lamp_files import folder_of
from fedperfit.simulation.world.build import BOUNDS, WORLD, Bounds, read_bounds, write_world
from fedperfit.simulation.world.settings import ParticipantCounts, WorldSize

ENOUGH_QUESTIONS = 80
"""Questions of all validating users together that suffice to choose hyper-parameters."""
VALIDATION_SHARE = 0.25
"""Share of a validating user's pairs, the latest, that become questions."""
_LEAST_QUESTIONS = 1
_TABLES = ".tables"


@dataclass(frozen=True)
class Target:
    """A user who is evaluated: what a method may see of them, and what they are asked."""

    history: History
    """The history, without questions."""
    ids: tuple[str, ...]
    """Ids of the questions in the data set."""
    questions: tuple[str, ...]
    golds: tuple[str, ...]
    """Answers to the questions, for scoring alone; never handed to a method."""


@dataclass(frozen=True)
class Participants:
    """Everyone in the study of one task."""

    task: Task
    others: list[History]
    """Users whose data train the collective part."""
    targets: list[Target]
    """Users who are evaluated; each has at least one question."""
    bounds: Bounds
    """Per target of the synthetic world the best answers with and without knowledge of the user; empty for
    other data.
    """

    def validation(self, users: int, questions: int) -> tuple[list[History], list[Target]]:
        """Split the others into those who train and those who validate.

        Users with the longest histories validate. They are asked about the latest quarter of their own pairs.

        Args:
            users: Number of validating users; 0 takes as many as give `ENOUGH_QUESTIONS`, at most half of the
                others.
            questions: Questions per validating user at most.

        Returns:
            The others without the validating users, and the validating users as targets.

        Raises:
            InputError: There are too few others.
        """
        if len(self.others) < max(users + 1, 2):
            raise InputError(
                f"{len(self.others)} other users are too few to validate on {users or 'some'} of them"
            )
        longest = sorted(self.others, key=lambda o: -(len(o.items) + len(o.answered)))
        validating: list[Target] = []
        for history in longest[: users or len(longest) // 2]:
            if users or sum(len(target.questions) for target in validating) < ENOUGH_QUESTIONS:
                validating.append(_held_out(self.task, history, questions))
        chosen = {target.history.name for target in validating}
        return [other for other in self.others if other.name not in chosen], validating


@contextmanager
def tables_of(data: str, folder: Path) -> Iterator[Path | None]:
    """Yield where `open_lamp` keeps the tables of data inside the block; None for the user's cache.

    A world is written anew for each run, so that nobody would open its tables again: they are gone after the
    block.

    Args:
        data: `world`, or where the data of users are.
        folder: Folder that the world is written to.
    """
    if data != WORLD:
        yield None
        return
    tables = folder / _TABLES
    shutil.rmtree(tables, ignore_errors=True)  # left by a killed run
    try:
        yield tables
    finally:
        shutil.rmtree(tables, ignore_errors=True)


def participants(task: Task, data: str, size: ParticipantCounts, folder: Path) -> Participants:
    """Read the participants of one task.

    Args:
        task: Task that is worked on.
        data: `world`, a folder with the task's LaMP files, or a folder with one such folder per task.
        size: Numbers of users at most. The world's users are the same for every seed of a study.
        folder: Folder that the world is written to.

    Raises:
        InputError: Data is missing or broken, or a metric of one's own is.
    """
    if data == WORLD:
        world = WorldSize(
            others=size.others,
            targets=size.targets,
            new=1,
            history=size.world_history,
            questions=size.world_questions,
        )
        root = folder / "world" / task.id
        if not (root / BOUNDS).exists():
            write_world(folder / "world", task, world, seed=0)
    else:
        root = from_home(data)
        root = folder_of(root, task)
    with tables_of(data, folder) as tables:
        lamp = open_lamp(root, task, tables)
        try_metrics(task, lamp)
        others = [lamp.user("others", name) for name in lamp.users("others")[: size.others]]
        targets = [lamp.user("targets", name) for name in lamp.users("targets")[: size.targets]]
    return Participants(
        task,
        [other_history(task, user) for user in others],
        [target for user in targets if (target := _target(task, user)).questions],
        read_bounds(root),
    )


def try_metrics(task: Task, data: LampData) -> None:
    """Score the gold answer of one question by each metric of one's own, before anything is trained.

    Args:
        task: Task of the data.
        data: Users, of whom one target is asked.

    Raises:
        InputError: A metric cannot be imported, or gives such an answer no score.
    """
    for metric in own_metrics(task.metrics):
        scored = own_metric(metric)
        for gold in _some_gold(data):
            scored(gold, gold)


def _some_gold(data: LampData) -> list[str]:
    """Return the answer to the first question of the first target, or nothing where that has none."""
    questions = [each for name in data.users("targets")[:1] for each in data.user("targets", name).questions]
    return [question["gold"] for question in questions if question["gold"]][:1]


def other_history(task: Task, user: User) -> History:
    """Return what one of the others trains on: items, and questions whose answers are known.

    Args:
        task: Task of the data.
        user: The user, as published.
    """
    answered = [question for question in user.questions if question["gold"]]
    return History(user.name, task, user.history, answered)


def _target(task: Task, user: User) -> Target:
    questions = [question for question in user.questions if question["gold"]]
    return _as_target(History(user.name, task, user.history), questions)


def _as_target(history: History, questions: Sequence[dict[str, Any]]) -> Target:
    return Target(
        history,
        tuple(str(question["id"]) for question in questions),
        tuple(question["input"] for question in questions),
        tuple(question["gold"] for question in questions),
    )


def _held_out(task: Task, history: History, most: int) -> Target:
    """Make a validating user's later pairs their questions; the earlier ones stay as history."""
    questions = [
        {"id": f"{history.name}-{n}", "input": past["input"], "gold": past["gold"]}
        for n, past in enumerate(history.answered)
    ]
    if task.free_history:  # an item has no source to ask about
        held = questions[-most:]
        return _as_target(replace(history, answered=[]), held)
    items = list(history.items)
    items += [{**task.query_fields(q["input"]), task.answer: q["gold"]} for q in questions]
    count = min(most, max(_LEAST_QUESTIONS, round(len(items) * VALIDATION_SHARE)))
    held = [
        {
            "id": f"{history.name}-held-{n}",
            "input": task.question(item),
            "gold": str(item[task.answer]),
        }
        for n, item in enumerate(items[-count:])
    ]
    return _as_target(replace(history, items=items[:-count], answered=[]), held)
