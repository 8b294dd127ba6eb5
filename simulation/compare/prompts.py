"""History in the prompt: how items are shown, which are chosen, and how many fit."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import bm25s

from fedperfit.edge.agent.history import History
from fedperfit.protocol.tasks import Pair, Task
from fedperfit.simulation.compare.context import Context, Values

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG, and has nothing to say

_SENTENCES = {
    "LaMP_2N": 'the category for the article: "{text}" is "{category}"',
    "LaMP_2M": 'the tag for the movie: "{description}" is "{tag}"',
    "LaMP_3": '{score} is the score for "{text}"',
    "LaMP_4": '"{title}" is the title for "{text}"',
    "LaMP_5": '"{title}" is the title for "{abstract}"',
    "LaMP_7": '"{text}"',
}
"""LaMP's own wording of an item in a prompt."""
_JOINTS = {
    "LaMP_5": ". Following the given patterns ",
    "LaMP_7": " are written by a person. Following the given patterns ",
}

PAIRS, SENTENCES = "pairs", "sentences"
TEMPLATES = (PAIRS, SENTENCES)
"""How items are shown: as solved questions in the prompt's own form, or in LaMP's sentences."""


def with_items(context: Context, items: Sequence[dict[str, Any]], prompt: str, template: str) -> str:
    """`prompt` after as many of `items`, the first ones first, as leave it whole."""
    free = context.room - _tokens(context, prompt)
    shown: list[str] = []
    for item in items:
        text = _show(context, item, template)
        free -= _tokens(context, text)
        if free < 0:
            break
        shown.append(text)
    while shown and _tokens(context, _joined(context.task, shown, template) + prompt) > context.room:
        shown.pop()
    return _joined(context.task, shown, template) + prompt


def _joined(task: Task, shown: Sequence[str], template: str) -> str:
    if template == PAIRS or not shown:
        return "".join(shown)
    return ", and ".join(shown) + _JOINTS.get(task.name, ". ")


def _show(context: Context, item: dict[str, Any], template: str) -> str:
    if template == PAIRS:
        pair = context.task.item_pair(item, context.form)
        return f"{pair.prompt}{pair.target}\n"
    return _SENTENCES[context.task.name].format(**item)


def _tokens(context: Context, text: str) -> int:
    return len(context.base.tokenizer(text, add_special_tokens=False)["input_ids"])


class Index:
    """BM25 over one person's items, oldest first. Words are what blanks separate (reference, section 3)."""

    def __init__(self, task: Task, items: Sequence[dict[str, Any]]) -> None:
        self._texts = [f"{item[task.field]} {item[task.answer]}".split() for item in items]

    def best(self, prompt: str, earlier: int, k: int) -> list[int]:
        """Numbers of the best `k` of the first `earlier` items, all it may know of; the later of equals."""
        texts = self._texts[:earlier]
        if not texts or not k:
            return []
        found = bm25s.BM25()
        found.index(texts, show_progress=False)
        scores = found.get_scores(prompt.split())
        return sorted(range(len(texts)), key=lambda n: (-scores[n], -n))[:k]


def retrieving_prompt(context: Context, history: History, question: str, k: int, template: str) -> str:
    """A question's prompt after the `k` items nearest to it, best first."""
    prompt = context.prompt(question)
    best = Index(context.task, history.items).best(prompt, len(history.items), k)
    return with_items(context, [history.items[n] for n in best], prompt, template)


def retrieving_pairs(context: Context, history: History, k: int, template: str) -> list[Pair]:
    """Training pairs whose prompts show what retrieval finds among *earlier* items; answered ones see all."""
    index = Index(context.task, history.items)

    def shown(pair: Pair, earlier: int) -> Pair:
        items = [history.items[n] for n in index.best(pair.prompt, earlier, k)]
        return replace(pair, prompt=with_items(context, items, pair.prompt, template))

    answered = context.pairs(replace(history, items=[]))
    own = context.pairs(replace(history, answered=[]))
    return [
        *(shown(pair, len(history.items)) for pair in answered),
        *(shown(pair, n) for n, pair in enumerate(own)),
    ]


class Retrieving:
    """Stands before a trained method: prompts show `k` retrieved items, in training earlier ones only."""

    context: Context
    values: Values

    def pairs(self, history: History) -> list[Pair]:
        """What is trained on."""
        return retrieving_pairs(self.context, history, self.values["k"], PAIRS)

    def prompt(self, history: History, question: str) -> str:
        """How a question is asked."""
        return retrieving_prompt(self.context, history, question, self.values["k"], PAIRS)

    def shown(self) -> Any:
        """What of the values decides the prompts."""
        return self.values["k"]
