"""Makes preference pairs from one person's history, and reads the model's hidden states of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fedperfit.edge.agent.history import History
from fedperfit.edge.chameleon.encoder import sentence_encoder
from fedperfit.edge.chameleon.identify import States
from fedperfit.edge.chameleon.prompts import Persona, history_text, insight_prompt, output_prompt
from fedperfit.edge.chameleon.states import embeddings, last_states, tokenize, tokenize_answered
from fedperfit.edge.engine.answering import answer, generate
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.slab import Stack
from fedperfit.protocol.messages.settings import PairSource
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.tasks import Prompt, PromptForm, Task

_NOTHING = Stack([], None, False)


@dataclass(frozen=True)
class Reader:
    """The frozen model as it embeds texts and answers prompts of one task."""

    base: BaseModel
    task: Task
    form: PromptForm
    batch_size: int = 20
    """Number of prompts answered side by side."""
    encoder: str = ""
    """Sentence encoder that selects items, a folder or hub name; empty for the base model itself."""

    def embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed texts for the selection of items, (texts, d) in fp32 on the CPU."""
        if self.encoder:
            return sentence_encoder(self.encoder, str(self.base.device))(texts)
        return embeddings(self.base, texts)

    def texts(self, prompts: Sequence[Prompt]) -> list[str]:
        """Continue prompts greedily, without any shift."""
        rows, most = self._rows(prompts), self.task.answer_tokens
        return generate(self.base, _NOTHING, rows, most=most, batch_size=self.batch_size)

    def answers(self, prompts: Sequence[Prompt]) -> list[str]:
        """Answer prompts with a label or a text, as the task has it, without any shift."""
        rows = self._rows(prompts)
        return answer(self.base, self.task, self.form, _NOTHING, rows, batch_size=self.batch_size)

    def shown(self, items: Sequence[dict[str, Any]], words: int) -> list[dict[str, Any]]:
        """First items that fit into the context, in an insight prompt with room for more tokens.

        Args:
            items: history, oldest first.
            words: number of tokens to leave room for.
        """
        shown = list(items)
        while shown:
            prompt = self.asking(insight_prompt(self.task, shown, Persona.NEUTRAL))
            if len(tokenize(self.base, prompt)) + words < self._room:
                break
            shown.pop()
        return shown

    def asking(self, text: str) -> Prompt:
        """Make a prompt of words that are not the task's own, in the form of the prompts."""
        return self.task.asking(text, self.form)

    def _rows(self, prompts: Sequence[Prompt]) -> list[Question]:
        return [Question(tokenize(self.base, prompt, self._room)) for prompt in prompts]

    @property
    def _room(self) -> int:
        return self.base.context - self.task.answer_tokens - 1


def representative(vectors: torch.Tensor, count: int) -> list[int]:
    """Select the items whose embeddings are longest on the leading principal components.

    CHAMELEON's equations 1 and 2: components of the centred embeddings, projections of the embeddings.

    Args:
        vectors: (items, d) embeddings.
        count: number of items to select, and of components.

    Returns:
        Numbers of the selected items, ascending.
    """
    if len(vectors) <= count:
        return list(range(len(vectors)))
    vectors = vectors.double()
    centred = vectors - vectors.mean(0)
    components = torch.linalg.svd(centred, full_matrices=False).Vh[:count]
    lengths = (vectors @ components.T).norm(dim=1)
    return sorted(lengths.argsort(descending=True, stable=True)[:count].tolist())


Settle = Callable[[list[dict[str, Any]], list[dict[str, Any]]], list[dict[str, Any]]]
"""Function that decides on the items of pairs, from those chosen and all that may be."""


def as_chosen(chosen: list[dict[str, Any]], every: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Decide on the chosen items, whatever pairs were made of before."""
    return chosen


def preference_states(
    reader: Reader, history: History, items: int, source: PairSource, settle: Settle = as_chosen
) -> States:
    """Make preference pairs of selected items and read their states; pairs of two equal texts are left out.

    Args:
        reader: the frozen model on the person's task.
        history: the person's history.
        items: number of items to select.
        source: where the two texts of a pair come from.
        settle: decides on the selected items.

    Returns:
        States of the pairs, possibly of none.
    """
    chosen = settle(selected(reader, history, items), candidates(reader.task, history))
    return pair_states(reader, chosen, source)


def pair_states(reader: Reader, chosen: Sequence[dict[str, Any]], source: PairSource) -> States:
    """Make preference pairs of chosen items and read their states; pairs of two equal texts are left out.

    Args:
        reader: the frozen model on the person's task.
        chosen: items, as `selected` returns them.
        source: where the two texts of a pair come from.

    Returns:
        States of the pairs, possibly of none.
    """
    if not chosen:
        return States.none(reader.base)
    pairs = _contrast(reader, chosen) if source is PairSource.CONTRAST else _insights(reader, chosen)
    rows = [[tokenize_answered(reader.base, *side) for side in pair] for pair in pairs if pair[0] != pair[1]]
    both = last_states(reader.base, [pair[side] for side in (0, 1) for pair in rows])
    return States(both[:, : len(rows)], both[:, len(rows) :])


def candidates(task: Task, history: History) -> list[dict[str, Any]]:
    """List the items that pairs may be made of: past questions with their answers count as items.

    Items that read alike are one, the oldest, whatever number each has: pairs of copies would tell it alone.

    Args:
        task: the person's task.
        history: the person's history.
    """
    every = list(history.items)
    if not task.free_history:
        answered = ({**task.query_fields(q["input"]), task.answer: q["gold"]} for q in history.answered)
        every = [*answered, *every]
    unlike: dict[tuple[str, ...], dict[str, Any]] = {}
    for item in every:
        unlike.setdefault(tuple(item[name] for name in (*task.fields, task.answer)), item)
    return list(unlike.values())


def selected(reader: Reader, history: History, items: int) -> list[dict[str, Any]]:
    """Select the items that represent a person.

    Args:
        reader: the frozen model on the person's task.
        history: the person's history.
        items: number of items to select.

    Returns:
        Items with the fields of the task, oldest first.
    """
    task, every = reader.task, candidates(reader.task, history)
    if not every:
        return []
    texts = [f"{task.text(item)} {item[task.answer]}" for item in every]
    return [every[number] for number in representative(reader.embeddings(texts), items)]


_Answered = tuple[Prompt, str]
"""Prompt with the text that answers it."""


def _contrast(reader: Reader, items: Sequence[dict[str, Any]]) -> list[tuple[_Answered, _Answered]]:
    """Each item's prompt with the person's answer, and with the bare model's answer."""
    task, form = reader.task, reader.form
    pairs = [task.item_pair(item, form) for item in items]
    queries = [task.query_pair(task.question(item), "", form).prompt for item in items]
    return [
        ((pair.prompt, pair.target), (pair.prompt, task.target(answered, form)))
        for pair, answered in zip(pairs, reader.answers(queries), strict=True)
    ]


def _insights(reader: Reader, items: Sequence[dict[str, Any]]) -> list[tuple[_Answered, _Answered]]:
    """Answers of the two agents about each item, with the others as its history; each after the history."""
    task = reader.task
    queries = [task.text(item) for item in items]
    longest = [reader.asking(_longest_prompt(task, [], query)) for query in queries]
    words = max(len(tokenize(reader.base, prompt)) for prompt in longest)
    shown = reader.shown(items, words)
    insights = reader.texts([reader.asking(insight_prompt(task, shown, one)) for one in Persona])
    outputs = []
    for persona, insight in zip(Persona, insights, strict=True):
        prompts = [
            reader.asking(
                output_prompt(task, [other for other in shown if other is not item], query, persona, insight)
            )
            for item, query in zip(items, queries, strict=True)
        ]
        outputs.append(reader.answers(prompts))
    opening = f"{history_text(task, shown)}\n\n"
    return [((opening, own), (opening, other)) for own, other in zip(*outputs, strict=True)]


def _longest_prompt(task: Task, items: Sequence[dict[str, Any]], query: str) -> str:
    """An output prompt with an insight of the greatest length."""
    return output_prompt(task, items, query, Persona.NEUTRAL, "so " * task.answer_tokens)
