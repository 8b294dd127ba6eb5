"""Users of the world drawn and written as LaMP files, with the best scores possible.

There are four disjoint groups: the population trains the embedded model and is never written; others train
the collective shift; targets fit personal shifts; new users meet the system without a history in it.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.tasks import TASKS, Pair, PromptForm, Task
from fedperfit.simulation.world.headlines import Headlines
from fedperfit.simulation.world.rating import Rating
from fedperfit.simulation.world.settings import WorldSize
from fedperfit.simulation.world.tagging import Tagging
from fedperfit.simulation.world.world_task import WorldTask

WORLD = "world"
"""Value of `data` that names the synthetic world."""
WORLD_TASKS: dict[str, WorldTask[Any, Any]] = {each.task: each for each in (Tagging(), Rating(), Headlines())}
"""The world's tasks by LaMP name."""
NEW_USERS = "new-users"
"""Folder inside a task's folder with the new users, in the same layout."""
BOUNDS = "bounds.json"
"""File with the gold and the two best answers of every question, per user."""
LIMIT = "limit.json"
"""File beside new users' bounds with the best answers when that many latest items are known, per user."""


class BestAnswers(TypedDict):
    """A question's right answer, and the best ones that can be given."""

    id: NotRequired[str]
    """Name of the question."""
    gold: str
    """The right answer to the question."""
    bayes: str
    """The best answer of who knows the user."""
    unknown: str
    """The best answer of who does not."""


Which = Literal["unknown", "bayes"]
BOTH: tuple[Which, Which] = ("unknown", "bayes")
"""The two best answers to a question."""
Bounds = dict[str, list[BestAnswers]]
"""What the file of bounds holds: answers to all questions, by user."""
Limits = dict[str, dict[str, list[str]]]
"""What the file of limits holds: the best answers by user and number of items that are known."""


def read_bounds(folder: Path) -> Bounds:
    """Read the bounds that a folder holds, none without their file; raises InputError if it is broken."""
    return read_form(folder / BOUNDS, Bounds) if (folder / BOUNDS).exists() else {}


def read_limits(folder: Path) -> Limits:
    """Read the limits that a folder holds, none without their file; raises InputError if it is broken."""
    return read_form(folder / LIMIT, Limits) if (folder / LIMIT).exists() else {}


@dataclass
class _Writer:
    """Draws users of one task and never the same text twice."""

    task: Task
    world_task: WorldTask[Any, Any]
    rng: random.Random
    community: bool

    def __post_init__(self) -> None:
        self._seen: set[str] = set()

    def example(self, taste: Any) -> tuple[str, str, Any]:
        """Draw a new item: its text, the user's answer, and its cues."""
        while True:
            item = self.world_task.item(self.rng, taste)
            if item.text not in self._seen:
                self._seen.add(item.text)
                return item.text, self.world_task.answer(self.rng, taste, item.cues), item.cues

    def user(
        self, name: str, size: WorldSize, questions: int, lengths: Sequence[int] = ()
    ) -> tuple[dict[str, Any], list[dict[str, str]], dict[str, list[str]]]:
        """Draw a user in OPPU's layout.

        Args:
            name: The user's name, also the beginning of item and question ids.
            size: Numbers of items; only `history` is read.
            questions: Number of questions to draw.
            lengths: Numbers of latest items after which the best answers are computed.

        Returns:
            The user's entry, per question its id, the gold and the two best answers, and by length the best
            answers to all of them.
        """
        taste = self.world_task.taste(self.rng, community=self.community)
        task = self.task
        profile, seen, asked = [], [], []
        for number in range(size.history):
            text, answer, cues = self.example(taste)
            seen.append((cues, answer))
            profile.append({"id": f"{name}-{number}", task.field: text, task.answer: answer})
        query, answers = [], []
        for number in range(questions):
            text, gold, cues = self.example(taste)
            asked.append(cues)
            query.append({"id": f"{name}-q{number}", "input": task.instruction + text})
            answers.append(
                {
                    "id": f"{name}-q{number}",
                    "gold": gold,
                    "bayes": self.world_task.best(taste, cues),
                    "unknown": self.world_task.best_unknown(cues, community=self.community),
                }
            )
        limit = {
            str(length): self.world_task.best_after(
                seen[-length or len(seen) :], asked, community=self.community
            )
            for length in lengths
        }
        return {"user_id": name, "profile": profile, "query": query}, answers, limit


def outdate_world(folder: Path, tasks: Iterable[str]) -> None:
    """Have worlds in a folder be taken for unwritten, as those that a study of other sizes left are.

    Args:
        folder: Folder of a new study.
        tasks: Ids of the tasks whose worlds they are.
    """
    for task in tasks:
        (folder / WORLD / task / BOUNDS).unlink(missing_ok=True)


def write_world(folder: Path, task: Task, size: WorldSize, seed: int, *, lengths: Sequence[int] = ()) -> Path:
    """Write the world of one task into a folder named by its id.

    Beside LaMP's files stands `bounds.json`: for each target's and new user's question the best answer when
    the taste is known (`bayes`) and when it is not (`unknown`). Beside the new users' stands `limit.json`: by
    user and number of latest items the best answers when the taste is not known but these items are.

    Args:
        folder: Parent of the folder that is written.
        task: One of the world's tasks, in words of its own or those that ship.
        size: Numbers of users and items.
        seed: Seed of the community's users.
        lengths: Numbers of items in `limit.json`, which is not written without any.

    Returns:
        The folder written.

    Raises:
        InputError: The world does not have this task.
    """
    rng = random.Random(f"{seed}/{task.name}/community")
    writer = _Writer(task, world_task_of(task), rng, community=True)
    root = folder / task.id
    others = []
    for number in range(size.others):
        user, answers, _ = writer.user(f"other-{number}", size, max(1, size.questions // 4))
        for query, answer in zip(user["query"], answers, strict=True):
            query["gold"] = answer["gold"]
        others.append(user)
    for target_root, group, count in ((root, "target", size.targets), (root / NEW_USERS, "new", size.new)):
        known = lengths if group == "new" else ()
        drawn = [writer.user(f"{group}-{number}", size, size.questions, known) for number in range(count)]
        golds = [{"id": a["id"], "output": a["gold"]} for _, answers, _ in drawn for a in answers]
        write_json(target_root / "user_others.json", others)
        write_json(target_root / "user_top_100_history.json", [user for user, _, _ in drawn])
        write_json(target_root / "user_top_100_history_label.json", {"task": task.name, "golds": golds})
        write_json(target_root / BOUNDS, {user["user_id"]: answers for user, answers, _ in drawn})
        if known:
            write_json(target_root / LIMIT, {user["user_id"]: limit for user, _, limit in drawn})
    return root


def population_pairs(task: Task, seed: int, *, items_per_user: int = 16) -> Iterator[tuple[Pair, Any]]:
    """Yield training pairs of population users without end, each with its cues.

    Args:
        task: One of the world's tasks, in words of its own or those that ship.
        seed: Seed of the population's users.
        items_per_user: Pairs drawn from one user before the next user is drawn.

    Raises:
        InputError: The world does not have this task.
    """
    rng = random.Random(f"{seed}/{task.name}/population")
    writer = _Writer(task, world_task_of(task), rng, community=False)
    while True:
        taste = writer.world_task.taste(writer.rng, community=False)
        for _ in range(items_per_user):
            text, answer, cues = writer.example(taste)
            item = {task.field: text, task.answer: answer}
            yield task.item_pair(item, PromptForm.LAMP), cues


def world_task_of(task: Task) -> WorldTask[Any, Any]:
    """Return what the world draws for a task, which a file may word and score in its own way.

    Raises:
        InputError: The world does not have this task, or the file gives it other fields or labels.
    """
    if task.name not in WORLD_TASKS:
        raise InputError(f"the world has no task {task.name!r}: expected one of {', '.join(WORLD_TASKS)}")
    known = TASKS[task.name]
    for key in ("kind", "fields", "answer", "labels"):
        if getattr(task, key) != getattr(known, key):
            stated = "target" if key == "answer" else key
            raise InputError(f"the world's task {task.name!r} has other {stated} than this file gives it")
    return WORLD_TASKS[task.name]
