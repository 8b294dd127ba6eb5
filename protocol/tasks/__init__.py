"""Tasks: how an item becomes a prompt and a target, and an answer a label; each is a TOML file."""

from fedperfit.protocol.tasks.answers import AnswerKind, Estimate
from fedperfit.protocol.tasks.prompt import Conversation, Prompt, Turn, asked_text, preceded
from fedperfit.protocol.tasks.registry import TASKS, id_of_text, own_text, task_by_name, task_id
from fedperfit.protocol.tasks.task import Pair, Task
from fedperfit.protocol.tasks.wording import PromptForm

__all__ = [
    "TASKS",
    "AnswerKind",
    "Conversation",
    "Estimate",
    "Pair",
    "Prompt",
    "PromptForm",
    "Task",
    "Turn",
    "asked_text",
    "id_of_text",
    "own_text",
    "preceded",
    "task_by_name",
    "task_id",
]
