"""A client's own folder: who they are, what they wrote, and their answered questions.

client.json       {"name", "task", "shares_metrics"}
history.jsonl     one item per line, with the fields of its LaMP task, oldest first
questions.jsonl   {"id", "input", "gold"} per line, for measuring; may be absent
personal/         the vault
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.errors import InputError
from protocol.files import read_json, read_json_lines, write_json, write_json_lines
from protocol.tasks import Pair, PromptForm, Task, task_by_name


@dataclass(frozen=True)
class History:
    """What one person has on their machine."""

    name: str
    task: Task
    shares_metrics: bool
    items: list[dict[str, Any]]
    questions: list[dict[str, Any]]

    def pairs(self, form: PromptForm, latest: int) -> list[Pair]:
        """Training pairs of the latest items; 0 is all, oldest first."""
        return [self.task.item_pair(item, form) for item in self.items[-latest:]]

    def answered(self, form: PromptForm) -> list[Pair]:
        """Prompt and gold of each question that has a gold."""
        return [
            self.task.query_pair(question["input"], question["gold"], form)
            for question in self.questions
            if question.get("gold")
        ]


def read_history(folder: Path) -> History:
    """Read a client's folder; raises InputError naming the file that is missing or wrong."""
    about = read_json(folder / "client.json")
    try:
        name, task, shares = about["name"], task_by_name(about["task"]), about["shares_metrics"]
    except (KeyError, TypeError):
        raise InputError(f"{folder / 'client.json'}: needs name, task and shares_metrics") from None
    questions = folder / "questions.jsonl"
    return History(
        name=str(name),
        task=task,
        shares_metrics=shares is True,
        items=_objects(folder / "history.jsonl"),
        questions=_objects(questions) if questions.exists() else [],
    )


def write_history(folder: Path, history: History) -> None:
    """The inverse of `read_history`, for simulations."""
    write_json_lines(folder / "history.jsonl", history.items)
    write_json_lines(folder / "questions.jsonl", history.questions)
    about = {"name": history.name, "task": history.task.name, "shares_metrics": history.shares_metrics}
    write_json(folder / "client.json", about)


def _objects(path: Path) -> list[dict[str, Any]]:
    values = read_json_lines(path)
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise InputError(f"{path}, entry {number}: expected a JSON object")
    return values
