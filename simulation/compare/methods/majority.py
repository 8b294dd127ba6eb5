"""Most frequent label, of everyone and of the user: a method must beat both to have read anything."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fedperfit.edge.agent.history import History
from fedperfit.protocol.tasks import AnswerKind, Task
from fedperfit.simulation.compare.method import Family, Method


class GlobalMajority(Method):
    """The most frequent label of the others."""

    name = "majority-global"
    title = "most frequent label of the others"
    family = Family.FLOOR
    collective = True

    @classmethod
    def suits(cls, task: Task) -> bool:
        return task.kind is not AnswerKind.TEXT

    def learn(self, others: Sequence[History]) -> None:
        labels = [label for other in others for label in self._labels(other)]
        self._overall = _most_frequent(labels, self.context.task)

    def fit(self, history: History) -> Any:
        return self._overall

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        return [str(fitted)] * len(questions)

    def _labels(self, history: History) -> list[str]:
        return [pair.target.strip() for pair in self.context.pairs(history)]


class UserMajority(GlobalMajority):
    """The user's most frequent label, the latest of equals; without history, the others'."""

    name = "majority-user"
    title = "most frequent label of the user"

    def fit(self, history: History) -> Any:
        labels = self._labels(history)
        return _most_frequent(labels[::-1], self.context.task) if labels else self._overall


def _most_frequent(labels: Sequence[str], task: Task) -> str:
    """Return the most frequent label, the first of equals; without labels, the task's first."""
    return Counter(labels).most_common(1)[0][0] if labels else task.labels[0]
