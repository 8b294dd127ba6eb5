"""Preference pairs made from one person's history, and what the model makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fedperfit.edge.agent.history import History
from fedperfit.edge.chameleon.encoder import sentence_encoder
from fedperfit.edge.chameleon.identify import States
from fedperfit.edge.chameleon.prompts import Agent, history_text, insight_prompt, output_prompt
from fedperfit.edge.chameleon.states import embeddings, last_states, tokenize
from fedperfit.edge.engine.answering import MAX_NEW_TOKENS, answer, generate
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.slab import Stack
from fedperfit.protocol.messages.settings import PairSource
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.tasks import PromptForm, Task

_NOTHING = Stack([], None, False)


@dataclass(frozen=True)
class Reader:
    """The frozen model on one task."""

    base: BaseModel
    task: Task
    form: PromptForm
    batch_size: int = 20
    encoder: str = ""
    """Sentence encoder (folder or hub name) that items are selected by; empty: the base model itself."""

    def embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        """(texts, d) fp32, on the CPU."""
        if self.encoder:
            return sentence_encoder(self.encoder, str(self.base.device))(texts)
        return embeddings(self.base, texts)

    def texts(self, prompts: Sequence[str]) -> list[str]:
        """Greedy continuations."""
        return generate(self.base, _NOTHING, self._rows(prompts), batch_size=self.batch_size)

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """Labels or texts, as the task has them."""
        about = (self.base, self.task, self.form, _NOTHING)
        return answer(*about, self._rows(prompts), batch_size=self.batch_size)

    def shown(self, items: Sequence[dict[str, Any]], words: int) -> list[dict[str, Any]]:
        """The first of `items` that leave the context room for `words` tokens beside an insight prompt."""
        shown = list(items)
        while shown:
            prompt = insight_prompt(self.task.name, shown, Agent.NEUTRAL)
            if len(tokenize(self.base, prompt)) + words < self._room:
                break
            shown.pop()
        return shown

    def _rows(self, prompts: Sequence[str]) -> list[Question]:
        return [Question(tokenize(self.base, prompt, self._room)) for prompt in prompts]

    @property
    def _room(self) -> int:
        return self.base.context - MAX_NEW_TOKENS - 1


def representative(vectors: torch.Tensor, count: int) -> list[int]:
    """Which `count` of (items, d) are longest on their `count` leading principal components, in order.

    The paper's equations 1 and 2: components of the centred embeddings, projections of the embeddings.
    """
    if len(vectors) <= count:
        return list(range(len(vectors)))
    vectors = vectors.double()
    centred = vectors - vectors.mean(0)
    components = torch.linalg.svd(centred, full_matrices=False).Vh[:count]
    lengths = (vectors @ components.T).norm(dim=1)
    return sorted(lengths.argsort(descending=True, stable=True)[:count].tolist())


def preference_states(reader: Reader, history: History, items: int, source: PairSource) -> States:
    """Select `items` of the history, make a pair of each and read its states; equal pairs are left out."""
    chosen = selected(reader, history, items)
    if not chosen:
        return States.none(reader.base)
    pairs = _contrast(reader, chosen) if source is PairSource.CONTRAST else _insights(reader, chosen)
    rows = [[tokenize(reader.base, side) for side in pair] for pair in pairs if pair[0] != pair[1]]
    both = last_states(reader.base, [pair[side] for side in (0, 1) for pair in rows])
    return States(both[:, : len(rows)], both[:, len(rows) :])


def selected(reader: Reader, history: History, items: int) -> list[dict[str, Any]]:
    """The items that stand for a person, oldest first; past questions with their answers are items too."""
    task = reader.task
    every = list(history.items)
    if not task.free_history:
        every = [
            *({task.field: task.query_field(q["input"]), task.answer: q["gold"]} for q in history.answered),
            *every,
        ]
    if not every:
        return []
    texts = [f"{item[task.field]} {item[task.answer]}" for item in every]
    return [every[number] for number in representative(reader.embeddings(texts), items)]


def _contrast(reader: Reader, items: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Each item's prompt with the person's answer, and with what the bare model says of the item."""
    task, form = reader.task, reader.form
    pairs = [task.item_pair(item, form) for item in items]
    queries = [task.query_pair(task.instruction + str(item[task.field]), "", form).prompt for item in items]
    return [
        (pair.prompt + pair.target, pair.prompt + task.target(said, form))
        for pair, said in zip(pairs, reader.answers(queries), strict=True)
    ]


def _insights(reader: Reader, items: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """What the two agents answer about each item, the others being its history; each after the history."""
    task = reader.task.name
    queries = [str(item[reader.task.field]) for item in items]
    words = max(len(tokenize(reader.base, _asked(task, [], query))) for query in queries)
    shown = reader.shown(items, words)
    insights = reader.texts([insight_prompt(task, shown, agent) for agent in Agent])
    said = []
    for agent, insight in zip(Agent, insights, strict=True):
        prompts = [
            output_prompt(task, [other for other in shown if other is not item], query, agent, insight)
            for item, query in zip(items, queries, strict=True)
        ]
        said.append(reader.answers(prompts))
    opening = history_text(task, shown)
    return [(f"{opening}\n\n{own}", f"{opening}\n\n{other}") for own, other in zip(*said, strict=True)]


def _asked(task: str, items: Sequence[dict[str, Any]], query: str) -> str:
    """An output prompt with an insight of the greatest length."""
    return output_prompt(task, items, query, Agent.NEUTRAL, "so " * MAX_NEW_TOKENS)
