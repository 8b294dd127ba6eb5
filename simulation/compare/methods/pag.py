"""PAG (Richardson et al., 2023): a profile of the user, written by the model itself, before the prompt."""

from collections.abc import Sequence
from typing import Any

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.answering import MAX_NEW_TOKENS, generate
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.examples import encode
from fedperfit.protocol.tasks import Pair
from fedperfit.simulation.compare.building_blocks.prompts import SENTENCES, with_items
from fedperfit.simulation.compare.context import NOTHING
from fedperfit.simulation.compare.method import Family, Method

_INSTRUCTIONS = {
    "LaMP_2N": "Look at the following past articles this user has written and determine the most popular "
    "category they tend to write about. Answer in the following form: most popular category: <category>",
    "LaMP_2M": "Look at the following past movies this user has watched and determine the most popular tag "
    "they labeled. Answer in the following form: most popular tag: <tag>",
    "LaMP_3": "Based on this user's past reviews, what are the most common scores they give for positive and "
    "negative reviews? Answer in the following form: most common positive score: <score>, most common "
    "negative score: <score>",
    "LaMP_4": "Given this author's previous articles, try to describe a template for their headlines. Be "
    "specific about their style and wording.",
    "LaMP_5": "Given this author's previous publications, try to describe a template for their titles. Be "
    "specific about their style and wording.",
    "LaMP_7": "Given this person's previous tweets, try to describe a template for their tweets. Only give "
    "the template description, nothing else.",
}
"""Instruction for the profile per task."""


class Pag(Method):
    """A profile written greedily, once per user, from the latest items."""

    name = "pag"
    title = "PAG (profile)"
    family = Family.PROMPT
    space = {"items": (5, 10)}

    def fit(self, history: History) -> Any:
        items = history.items[: -self.values["items"] - 1 : -1]
        if not items:
            return ""
        prompt = with_items(self.context, items, f"{_INSTRUCTIONS[self.context.task.name]}\n", SENTENCES)
        return self.context.keep("profiles/profile", prompt, lambda: self._write(prompt).encode()).decode()

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        profile = f"{fitted}\n" if fitted else ""
        return self.context.answer([profile + self.context.prompt(question) for question in questions])

    def _write(self, prompt: str) -> str:
        base = self.context.base
        (row,) = encode(base, [Pair(prompt, "")], reserve=MAX_NEW_TOKENS)
        (text,) = generate(base, NOTHING, [Question(row.prompt)], batch_size=1)
        return text
