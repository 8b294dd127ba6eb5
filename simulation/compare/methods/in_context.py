"""History in the prompt without retrieval: all that fits, or a random part."""

import random
from collections.abc import Sequence
from typing import Any

from fedperfit.edge.agent.history import History
from fedperfit.protocol.tasks import Prompt
from fedperfit.simulation.compare.building_blocks.prompts import TEMPLATES, with_items
from fedperfit.simulation.compare.method import Family, Method


class FullHistory(Method):
    """All items that fit in the prompt, the latest first."""

    name = "icl-full"
    title = "full history in context"
    family = Family.PROMPT
    space = {"template": TEMPLATES}

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        return self.context.answer([self._prompt(fitted, question) for question in questions])

    def _prompt(self, history: History, question: str) -> Prompt:
        items = history.items[::-1]
        return with_items(self.context, items, self.context.prompt(question), self.values["template"])


class RandomHistory(FullHistory):
    """A few items in the prompt, drawn anew for each question."""

    name = "icl-random"
    title = "random history in context"
    space = {"template": TEMPLATES, "k": (1, 2, 4)}

    def _prompt(self, history: History, question: str) -> Prompt:
        rng = random.Random(self.context.number(history.name, question))
        items = rng.sample(history.items, min(self.values["k"], len(history.items)))
        return with_items(self.context, items, self.context.prompt(question), self.values["template"])
