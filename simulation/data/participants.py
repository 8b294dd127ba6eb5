"""Who takes part: others, of whom some validate, and targets with their held-out questions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedperfit.edge.agent.history import History
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Task
from fedperfit.simulation.data.lamp import User, open_lamp
from fedperfit.simulation.world.build import BOUNDS, KINDS, WORLD, WorldSize, write_world

ENOUGH_QUESTIONS = 80
"""To choose hyper-parameters by, of all validating users together; where each has few, users are more."""
VALIDATION_SHARE = 0.25
"""Of a validating user's pairs, the latest of which become questions."""
_LEAST_QUESTIONS = 1


@dataclass(frozen=True)
class Target:
    """One person: what a method may see, and what it is asked."""

    history: History
    """Without questions."""
    ids: tuple[str, ...]
    questions: tuple[str, ...]
    golds: tuple[str, ...]
    """For scoring alone; never handed to a method."""


@dataclass(frozen=True)
class Participants:
    """Everyone in one task's comparison."""

    task: Task
    others: list[History]
    targets: list[Target]
    bounds: dict[str, list[dict[str, str]]]
    """In the world, per target the best answers without and with knowledge of the user."""

    def validation(self, users: int, questions: int) -> tuple[list[History], list[Target]]:
        """The others less `users` of them with the longest histories, and these as targets.

        The latest quarter of their own pairs, at most `questions`, are what they are asked. With `users` 0 so
        many are taken that there are `ENOUGH_QUESTIONS`, or half of the others.
        Raises InputError when too few others are left.
        """
        if len(self.others) < max(users + 1, 2):
            raise InputError(
                f"{len(self.others)} other users are too few to validate on {users or 'some'} of them"
            )
        longest = sorted(self.others, key=lambda o: -(len(o.items) + len(o.answered)))
        held: list[Target] = []
        for history in longest[: users or len(longest) // 2]:
            if users or sum(len(target.questions) for target in held) < ENOUGH_QUESTIONS:
                held.append(_held_out(self.task, history, questions))
        chosen = {target.history.name for target in held}
        return [other for other in self.others if other.name not in chosen], held


@dataclass(frozen=True, kw_only=True)
class ParticipantCounts:
    """How many users take part, and of the world how many items each has."""

    others: int
    targets: int
    world_history: int
    world_questions: int


def participants(task: Task, data: str, size: ParticipantCounts, folder: Path) -> Participants:
    """The people of `data`, `world` or a folder with the task's LaMP files (or one such folder per task).

    folder: where the world is written. The world's users are the same for every seed of a comparison.
    Raises InputError for data that is missing or broken.
    """
    if data == WORLD:
        if task.name not in KINDS:
            raise InputError(f"the world has no task {task.name!r}: expected one of {', '.join(KINDS)}")
        world = WorldSize(
            others=size.others,
            targets=size.targets,
            new=1,
            history=size.world_history,
            questions=size.world_questions,
        )
        root = folder / "world" / task.name
        if not (root / BOUNDS).exists():
            write_world(folder / "world", task.name, world, seed=0)
    else:
        root = Path(data).expanduser()
        root = root / task.name if (root / task.name).is_dir() else root
    found = open_lamp(root, task)
    others = [found.user("others", name) for name in found.users("others")[: size.others]]
    targets = [found.user("targets", name) for name in found.users("targets")[: size.targets]]
    bounds = json.loads((root / BOUNDS).read_text()) if (root / BOUNDS).exists() else {}
    return Participants(
        task,
        [_other(task, user) for user in others],
        [target for user in targets if (target := _target(task, user)).questions],
        bounds,
    )


def _other(task: Task, user: User) -> History:
    answered = [question for question in user.questions if question["gold"]]
    return History(user.name, task, False, user.history, answered, [])


def _target(task: Task, user: User) -> Target:
    asked = [question for question in user.questions if question["gold"]]
    return _asked(History(user.name, task, False, user.history, [], []), asked)


def _asked(history: History, questions: Sequence[dict[str, Any]]) -> Target:
    return Target(
        history,
        tuple(str(question["id"]) for question in questions),
        tuple(question["input"] for question in questions),
        tuple(question["gold"] for question in questions),
    )


def _held_out(task: Task, history: History, most: int) -> Target:
    """A validating user's later pairs as questions, the earlier ones as history."""
    questions = [
        {"id": f"{history.name}-{n}", "input": past["input"], "gold": past["gold"]}
        for n, past in enumerate(history.answered)
    ]
    if task.free_history:  # an item has no source to ask about
        held = questions[-most:]
        return _asked(replace(history, answered=[]), held)
    items = list(history.items)
    items += [{task.field: task.query_field(q["input"]), task.answer: q["gold"]} for q in questions]
    count = min(most, max(_LEAST_QUESTIONS, round(len(items) * VALIDATION_SHARE)))
    held = [
        {
            "id": f"{history.name}-held-{n}",
            "input": task.instruction + str(item[task.field]),
            "gold": str(item[task.answer]),
        }
        for n, item in enumerate(items[-count:])
    ]
    return _asked(replace(history, items=items[:-count], answered=[]), held)
