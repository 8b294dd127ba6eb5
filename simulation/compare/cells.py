"""Work of a comparison, cut into units that workers do side by side; each line they make is final."""

import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.paths.check import load_checked
from fedperfit.protocol.settings.forms import read_form_lines
from fedperfit.protocol.system.files import mend_lines
from fedperfit.protocol.tasks import task_by_name
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.compare.guarded import apart, checked_answers, counted, guarded
from fedperfit.simulation.compare.method import Method, lineage, registry
from fedperfit.simulation.compare.search import Trial, best, drawn, goodness
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.data.participants import Participants, Target, participants
from fedperfit.simulation.memory import Peak

SEARCH, MAIN, HISTORY, COLLECTIVE = "search", "main", "history", "collective"
"""Results of a unit: hyper-parameters, scores, cold start by history, cold start by number of other users."""

MADE = "made"
"""Folder in the run folder of what is made once and used often: collective parts, profiles."""


@dataclass(frozen=True)
class WorkUnit:
    """Work that one process does in one go, for one method, task and seed."""

    task: str
    method: str
    kind: str
    """`SEARCH`, `MAIN`, `HISTORY` or `COLLECTIVE`."""
    seed: int

    @property
    def file(self) -> Path:
        """Path in the run folder of the unit's lines: one JSON object per draw or cell."""
        if self.kind == SEARCH:
            return Path(SEARCH) / self.task / f"{self.method}.jsonl"
        return Path("cells") / self.task / self.method / f"{self.kind}-{self.seed}.jsonl"

    def __str__(self) -> str:
        about = "" if self.kind == SEARCH else f" seed {self.seed}"
        return f"{self.task} {self.method} {self.kind}{about}"


@dataclass(frozen=True)
class Cell:
    """A user and a size, for which a unit writes one line."""

    user: str
    size: int
    """History items, or other users; -1 for all there are."""


Line = TypedDict(
    "Line",
    {
        "user": str,
        "size": int,
        "answers": list[str],
        "items": int,
        "parameters": int | float,
        "bytes-down": int | float,
        "bytes-up": int | float,
        "fit-seconds": float,
        "answer-seconds": float,
        "peak-bytes": int | None,
    },
)
"""What a unit wrote for one cell."""


class WorkerState:
    """Model, participants and methods of one process, each loaded once."""

    def __init__(
        self, folder: Path, settings: CompareSettings, people: Mapping[str, Participants] | None = None
    ) -> None:
        """Find the methods; everything else is loaded on first use.

        Args:
            folder: Folder of the comparison, or of a worker's own files.
            settings: Settings of the comparison.
            people: Participants by task; by default they are read where the settings say.

        Raises:
            InputError: A method file cannot be used.
        """
        self.folder, self.settings = folder, settings
        for task in settings.tasks:
            task_by_name(task)  # units name it by its id from now on
        self.methods = registry([Path(file) for file in settings.method_files])
        self.participants = cache(self._read_participants) if people is None else people.__getitem__
        self._items: ItemCache | None = None
        self.failed: dict[tuple[str, str], str] = {}
        """What went wrong, in one line, by task and method, where a method cannot go on."""

    def _read_participants(self, task: str) -> Participants:
        return participants(task_by_name(task), self.settings.data, self.settings.size, self.folder)

    def context(self, task: str, seed: int) -> MethodContext:
        """Return the context of one task and seed; the base model is loaded on first use.

        Args:
            task: Task that is worked on.
            seed: Seed of the methods.
        """
        settings = self.settings
        if self._items is None:
            base = load_checked(settings.base_model, device=settings.device, dtype=settings.dtype)
            self._items = ItemCache(base)
        return MethodContext(
            base=self._items.base,
            task=task_by_name(task),
            form=settings.prompt_form,
            seed=seed,
            items=self._items,
            folder=self.folder / MADE,
            batch_size=settings.batch_size,
            answer_batch=settings.answer_batch,
            collective_items=settings.collective_items,
            encoder=settings.encoder,
        )

    def chosen(self, task: str, name: str) -> dict[str, Any]:
        """Return the values chosen for a method and for all methods it builds on.

        Args:
            task: Task that is worked on.
            name: The method's name.
        """
        values: dict[str, Any] = {}
        for link in lineage(self.methods, name):
            if self.methods[link].space:
                values |= best(read_form_lines(self.folder / WorkUnit(task, link, SEARCH, 0).file, Trial))
        return values

    def is_lost(self, task: str, name: str) -> bool:
        """Whether a method, or one that it builds on, failed.

        Args:
            task: Task that is worked on.
            name: The method's name.
        """
        return any((task, link) in self.failed for link in lineage(self.methods, name))

    def left(self, unit: WorkUnit) -> list[Any]:
        """List the draws or cells of the unit that are not on file."""
        path = self.folder / unit.file
        mend_lines(path)
        if unit.kind == SEARCH:
            done = {trial["draw"] for trial in read_form_lines(path, Trial)} if path.exists() else set()
            tries = drawn(self.methods[unit.method], self.settings.draws)
            return [(n, values) for n, values in enumerate(tries) if n not in done]
        lines = read_form_lines(path, Line) if path.exists() else []
        on_file = {(line["user"], line["size"]) for line in lines}
        return [cell for cell in self.cells(unit) if (cell.user, cell.size) not in on_file]

    def cells(self, unit: WorkUnit) -> list[Cell]:
        """List all cells of a unit that is no search, in the order of the targets."""
        settings, method = self.settings, self.methods[unit.method]
        people = self.participants(unit.task)
        targets = people.targets[: method.most_users]
        if unit.kind == MAIN:
            return [Cell(target.history.name, -1) for target in targets]
        targets = targets[: settings.curve_users]
        sizes = settings.history_lengths
        if unit.kind == COLLECTIVE:
            sizes = [size for size in settings.collective_sizes if size < len(people.others)] + [-1]
        return [Cell(target.history.name, size) for size in sizes for target in targets]

    def given(self, unit: WorkUnit) -> dict[str, Any]:
        """Return the values that the unit is done with, which the searches it waits for have chosen."""
        if unit.kind != SEARCH:
            return self.chosen(unit.task, unit.method)
        parent = self.methods[unit.method].builds_on
        return self.chosen(unit.task, parent) if parent else {}

    def do(
        self, unit: WorkUnit, left: Sequence[Any], given: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield a line for each draw or cell.

        Args:
            unit: The unit.
            left: Its draws or cells that are not on file.
            given: Values of hyper-parameters; by default those that the searches on file have chosen.
        """
        values = self.given(unit) if given is None else given
        return (self._search if unit.kind == SEARCH else self._answers)(unit, left, values)

    def _search(
        self, unit: WorkUnit, left: Sequence[tuple[int, dict[str, Any]]], inherited: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        settings, people = self.settings, self.participants(unit.task)
        others, targets = people.validation(settings.validation_users, settings.validation_questions)
        context = replace(self.context(unit.task, unit.seed), most_pairs=settings.search_pairs)
        for draw, values in left:
            context.items.clear()  # so that no bit depends on what was done before
            started = time.perf_counter()
            method = self._learned(unit, context, {**inherited, **values}, others)
            total, count = 0.0, 0
            for target in targets:
                (seen,) = apart([_latest(target.history, settings.validation_items)])
                answers = _answered(method, _fitted(method, seen), target.questions)
                score, questions = goodness(people.task, answers, target.golds)
                total, count = total + score, count + questions
            yield {
                "draw": draw,
                "values": values,
                "score": total / count,
                "questions": count,
                "seconds": time.perf_counter() - started,
            }

    def _answers(
        self, unit: WorkUnit, left: Sequence[Cell], values: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        people, settings = self.participants(unit.task), self.settings
        context = self.context(unit.task, unit.seed)
        places = {target.history.name: n for n, target in enumerate(people.targets)}
        learned: tuple[int, Method] | None = None
        for cell in left:
            context.items.clear()  # so that no bit, and no time, depends on what was done before
            others = people.others
            if unit.kind == COLLECTIVE and cell.size > 0:
                others = others[: cell.size]
            if learned is None or learned[0] != len(others):
                learned = len(others), self._learned(unit, context, values, others)
            place = places[cell.user]
            seen = people.targets[place].history
            if unit.kind == HISTORY:
                seen = _latest(seen, cell.size)
            elif unit.kind == COLLECTIVE:
                seen = _latest(seen, settings.curve_items)
            before = [target.history for target in people.targets[:place]]
            yield {"user": cell.user, "size": cell.size} | _one(
                learned[1], seen, people.targets[place], before
            )

    def _learned(
        self, unit: WorkUnit, context: MethodContext, values: Mapping[str, Any], others: Sequence[History]
    ) -> Method:
        with guarded("learn"):
            method = self.methods[unit.method](context, deepcopy(values))
            method.learn(apart(others))
        return method


def _fitted(method: Method, seen: History) -> Any:
    with guarded("fit"):
        return method.fit(seen)


def _answered(method: Method, fitted: Any, questions: Sequence[str]) -> list[str]:
    with guarded("answer"):
        return checked_answers(method.answer(fitted, questions), len(questions))


def _one(method: Method, seen: History, target: Target, before: Sequence[History]) -> dict[str, Any]:
    """Fit and answer for one user. Of `target` the method gets the questions, and nothing else."""
    if method.sees_targets_before:
        method.before = apart(before)
    (seen,) = apart([seen])
    items = len(seen.items)
    with Peak(method.context.base.device) as peak:
        started = time.perf_counter()
        fitted = _fitted(method, seen)
        fit_seconds = time.perf_counter() - started
        answers = _answered(method, fitted, target.questions)
        answer_seconds = time.perf_counter() - started - fit_seconds
    return {
        "answers": answers,
        "items": items,
        **counted(method, fitted),
        "fit-seconds": fit_seconds,
        "answer-seconds": answer_seconds / len(target.questions),
        "peak-bytes": peak.bytes,
    }


def _latest(history: History, items: int) -> History:
    return replace(history, items=history.items[-items:] if items else [])
