"""PAG (Richardson et al., 2023): a profile of the user, written by the model itself, before the prompt."""

from collections.abc import Sequence
from typing import Any

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.answering import generate
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.examples import encode
from fedperfit.protocol.tasks import Pair, Prompt, preceded
from fedperfit.simulation.compare.building_blocks.prompts import SENTENCES, with_items
from fedperfit.simulation.compare.context import NOTHING
from fedperfit.simulation.compare.method import Family, Method


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
        context = self.context
        asked = context.task.asking(f"{context.task.wording.profile}\n", context.form)
        prompt = with_items(context, items, asked, SENTENCES)
        return context.keep("profiles/profile", prompt, lambda: self._write(prompt).encode()).decode()

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        profile = f"{fitted}\n" if fitted else ""
        return self.context.answer(
            [preceded(profile, self.context.prompt(question)) for question in questions]
        )

    def _write(self, prompt: Prompt) -> str:
        base = self.context.base
        most = self.context.task.answer_tokens
        (row,) = encode(base, [Pair(prompt, "")], reserve=most)
        (text,) = generate(base, NOTHING, [Question(row.prompt)], most=most, batch_size=1)
        return text
