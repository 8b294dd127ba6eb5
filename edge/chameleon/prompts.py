"""CHAMELEON's prompts: they ask the model for insights, and for outputs with an insight in the prompt.

The words of a task are in its file: those of LaMP-2M, -3 and -7 are the paper's (appendix A.3), those of
LaMP-2N, -4 and -5 are in the same spirit. The paper does not print its insight prompts; these ask for what
its output prompts need: words that go on after "The user prefers" and "Your answer should".
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from fedperfit.protocol.tasks import Task


class Persona(StrEnum):
    """The paper's two agents that answer: one knows the person, the other ignores all preferences."""

    PERSONALIZED = "personalized"
    NEUTRAL = "neutral"


_ROLES = {
    Persona.PERSONALIZED: "You are a helpfully personalized assistant. {guess} The user prefers {insight}.",
    Persona.NEUTRAL: "You are a generic and impersonal assistant. You do not consider the user's preferences "
    "or profile history when responding. Your answer should {insight}.",
}
_INSIGHTS = {
    Persona.PERSONALIZED: "Describe in one sentence what this user prefers. The user prefers",
    Persona.NEUTRAL: "Describe in one sentence how an assistant answers that knows nothing of this user and "
    "considers no preference. Your answer should",
}


def insight_prompt(task: Task, items: Sequence[dict[str, Any]], persona: Persona) -> str:
    """Write the prompt for the insight of one of the two agents; the answer continues its last words.

    Args:
        task: task of the items, which words them.
        items: history shown, oldest first.
        persona: agent whose insight is asked for.
    """
    return f"{history_text(task, items)}\n\n{_INSIGHTS[persona]}"


def output_prompt(
    task: Task, items: Sequence[dict[str, Any]], query: str, persona: Persona, insight: str
) -> str:
    """Write the prompt for one agent's answer to a query; the answer follows the prompt.

    Args:
        task: task of the items, which words them.
        items: history shown, oldest first.
        query: text the question is about.
        persona: agent that answers.
        insight: what the model wrote for this agent's insight prompt.
    """
    words = task.wording.chameleon
    role = _ROLES[persona].format(guess=words.guess, insight=insight.strip().rstrip("."))
    return (
        f"{history_text(task, items)}\n\n{words.asked}{query}\n\nQuestion: {words.question}\n\n"
        f"{role}{words.closing}\n\nYour answer: "
    )


def history_text(task: Task, items: Sequence[dict[str, Any]]) -> str:
    """Write the opening and the numbered history of a prompt.

    Args:
        task: task of the items, which words them.
        items: history shown, oldest first.
    """
    words = task.wording.chameleon
    lines = [f"{number}. {task.shown(words.item, item)}" for number, item in enumerate(items, start=1)]
    return "\n".join([words.opening, *lines])
