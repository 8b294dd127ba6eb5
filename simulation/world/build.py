"""Draws the world's users, writes them as LaMP files, and computes the best scores possible.

Four disjoint groups: the population trains the embedded model and is never written; others train
the collective shift, targets fit personal shifts, new users meet the system cold.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.tasks import TASKS, Pair, PromptForm, task_by_name
from fedperfit.simulation.world.headlines import Headlines
from fedperfit.simulation.world.kinds import Kind
from fedperfit.simulation.world.rating import Rating
from fedperfit.simulation.world.tagging import Tagging

WORLD = "world"
"""Value of `data` that names the synthetic world."""
KINDS: dict[str, Kind[Any, Any]] = {kind.task: kind for kind in (Tagging(), Rating(), Headlines())}
NEW_USERS = "new-users"
"""Folder, inside a task's, with the new users in the same layout."""
BOUNDS = "bounds.json"


@dataclass(frozen=True)
class WorldSize:
    """How many users and items the world has."""

    others: int = 40
    targets: int = 24
    new: int = 24
    history: int = 64
    """Items per user."""
    questions: int = 20
    """Per target or new user; others answer a quarter as many."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise InputError(f"{name}={value}: the world needs at least 1")


@dataclass
class _Writer:
    """Draws users of one kind, never the same text twice."""

    kind: Kind[Any, Any]
    rng: random.Random
    community: bool

    def __post_init__(self) -> None:
        self._seen: set[str] = set()
        self._task = TASKS[self.kind.task]

    def example(self, taste: Any) -> tuple[str, str, Any]:
        """Text, answer and cues of a new item."""
        while True:
            item = self.kind.item(self.rng, taste)
            if item.text not in self._seen:
                self._seen.add(item.text)
                return item.text, self.kind.answer(self.rng, taste, item.cues), item.cues

    def user(self, name: str, size: WorldSize, questions: int) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """A user in OPPU's layout, and per question the gold and the two best answers."""
        taste = self.kind.taste(self.rng, community=self.community)
        task = self._task
        profile = []
        for number in range(size.history):
            text, answer, _ = self.example(taste)
            profile.append({"id": f"{name}-{number}", task.field: text, task.answer: answer})
        query, answers = [], []
        for number in range(questions):
            text, gold, cues = self.example(taste)
            query.append({"id": f"{name}-q{number}", "input": task.instruction + text})
            answers.append(
                {
                    "id": f"{name}-q{number}",
                    "gold": gold,
                    "bayes": self.kind.best(taste, cues),
                    "unknown": self.kind.best_unknown(cues, community=self.community),
                }
            )
        return {"user_id": name, "profile": profile, "query": query}, answers


def write_world(folder: Path, task: str, size: WorldSize, seed: int) -> Path:
    """Write the world of one task into `folder/task`; returns that folder.

    Beside LaMP's files stands `bounds.json`: for each target's and new user's question the answer
    that is best for the known taste, and the best without knowing the user.
    Raises InputError for a task the world does not have.
    """
    kind = _kind(task)
    writer = _Writer(kind, random.Random(f"{seed}/{task}/community"), community=True)
    root = folder / task
    others = []
    for number in range(size.others):
        user, answers = writer.user(f"other-{number}", size, max(1, size.questions // 4))
        for query, answer in zip(user["query"], answers, strict=True):
            query["gold"] = answer["gold"]
        others.append(user)
    for target_root, group, count in ((root, "target", size.targets), (root / NEW_USERS, "new", size.new)):
        drawn = [writer.user(f"{group}-{number}", size, size.questions) for number in range(count)]
        golds = [{"id": a["id"], "output": a["gold"]} for _, answers in drawn for a in answers]
        write_json(target_root / "user_others.json", others)
        write_json(target_root / "user_top_100_history.json", [user for user, _ in drawn])
        write_json(target_root / "user_top_100_history_label.json", {"task": task, "golds": golds})
        write_json(target_root / BOUNDS, {user["user_id"]: answers for user, answers in drawn})
    return root


def population_pairs(task: str, seed: int, *, items_per_user: int = 16) -> Iterator[tuple[Pair, Any]]:
    """Endless training pairs of population users, with each pair's cues."""
    writer = _Writer(_kind(task), random.Random(f"{seed}/{task}/population"), community=False)
    lamp = task_by_name(task)
    while True:
        taste = writer.kind.taste(writer.rng, community=False)
        for _ in range(items_per_user):
            text, answer, cues = writer.example(taste)
            item = {lamp.field: text, lamp.answer: answer}
            yield lamp.item_pair(item, PromptForm.LAMP), cues


def _kind(task: str) -> Kind[Any, Any]:
    if task not in KINDS:
        raise InputError(f"the world has no task {task!r}: expected one of {', '.join(KINDS)}")
    return KINDS[task]
