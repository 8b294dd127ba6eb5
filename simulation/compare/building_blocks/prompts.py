"""History in the prompt: how items are shown, which are chosen, and how many fit."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedperfit.edge.agent.history import History
from fedperfit.protocol.model.prompt_tokens import prompt_tokens
from fedperfit.protocol.tasks import Pair, Prompt, Task, asked_text, preceded
from fedperfit.simulation.compare.context import MethodContext, Values

_K1, _B = 1.5, 0.75
"""BM25's weight of repeated words, and of an item's length."""
PAIRS, SENTENCES = "pairs", "sentences"
TEMPLATES = (PAIRS, SENTENCES)
"""Forms in which items are shown: solved questions in the prompt's own form, or the task's sentences."""


def with_items(
    context: MethodContext, items: Sequence[dict[str, Any]], prompt: Prompt, template: str
) -> Prompt:
    """Put as many of `items` before `prompt` as leave it whole, the first ones first.

    Args:
        context: Model, whose context limits the prompt, and task.
        items: Items of a history, most wanted first.
        prompt: Prompt of a question; a conversation gets the items into its last turn.
        template: One of `TEMPLATES`.
    """
    free = context.room - _tokens(context, prompt)
    shown: list[str] = []
    for item in items:
        text = _show(context, item, template)
        free -= _tokens(context, text)
        if free < 0:
            break
        shown.append(text)
    while shown and _tokens(context, _showing(context, shown, prompt, template)) > context.room:
        shown.pop()
    return _showing(context, shown, prompt, template)


def _showing(context: MethodContext, shown: Sequence[str], prompt: Prompt, template: str) -> Prompt:
    return preceded(_joined(context.task, shown, template), prompt)


def _joined(task: Task, shown: Sequence[str], template: str) -> str:
    if template == PAIRS or not shown:
        return "".join(shown)
    return ", and ".join(shown) + task.wording.joint


def _show(context: MethodContext, item: dict[str, Any], template: str) -> str:
    if template == PAIRS:
        pair = context.task.item_pair(item, context.form)
        joint = "" if isinstance(pair.prompt, str) else "\n"
        return f"{asked_text(pair.prompt)}{joint}{pair.target}\n"
    return context.task.shown(context.task.wording.sentence, item)


def _tokens(context: MethodContext, prompt: Prompt) -> int:
    """Number of tokens beside those that every row begins with."""
    return len(prompt_tokens(context.base, [prompt])[0]) - len(context.base.start)


class Index:
    """BM25 index over one user's items, oldest first; words are separated by blanks, as in LaMP's code.

    It is made once and ranks any number of first items as an index over these alone would: scores are, to the
    digit, those of the library bm25s, whose index would have to be made anew for each number.
    """

    def __init__(self, task: Task, items: Sequence[dict[str, Any]]) -> None:
        """Count the words of the items.

        Args:
            task: Task, which names the fields of an item.
            items: Items, oldest first.
        """
        texts = [f"{task.text(item)} {item[task.answer]}".split() for item in items]
        self._lengths = np.array([len(text) for text in texts], dtype=np.int64)
        places: dict[str, tuple[list[int], list[int]]] = {}
        for number, text in enumerate(texts):
            for word, count in Counter(text).items():
                numbers, counts = places.setdefault(word, ([], []))
                numbers.append(number)
                counts.append(count)
        self._places = {
            word: (np.array(numbers), np.array(counts, dtype=np.float32))
            for word, (numbers, counts) in places.items()
        }

    def scores(self, words: Sequence[str], earlier: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Score items by their words.

        Args:
            words: Words of a prompt.
            earlier: Number of first items to score.

        Returns:
            (earlier,) scores.
        """
        scores = np.zeros(earlier, dtype=np.float32)
        average = self._lengths[:earlier].mean()
        for word in words:
            if word not in self._places:
                continue
            numbers, counts = self._places[word]
            here = int(np.searchsorted(numbers, earlier))
            numbers, counts = numbers[:here], counts[:here]
            rarity = np.float32(math.log(1 + (earlier - here + 0.5) / (here + 0.5)))
            length = _K1 * ((1 - _B) + _B * self._lengths[numbers] / average)
            scores[numbers] += (rarity * (counts / (length + counts))).astype(np.float32)
        return scores

    def best(self, prompt: Prompt, earlier: int, k: int) -> list[int]:
        """Find the items that match `prompt` best.

        Args:
            prompt: Prompt of a question.
            earlier: Number of first items to choose from.
            k: Number of items to find at most.

        Returns:
            Numbers of the items, best first; of equals the later one first.
        """
        if not earlier or not k:
            return []
        scores = self.scores(asked_text(prompt).split(), earlier)
        return sorted(range(earlier), key=lambda n: (-scores[n], -n))[:k]


def retrieving_prompt(
    context: MethodContext, history: History, question: str, k: int, template: str
) -> Prompt:
    """Put the `k` items nearest to a question before its prompt, best first.

    Args:
        context: Model and task.
        history: The user's history.
        question: Question as in the benchmark.
        k: Number of items at most.
        template: One of `TEMPLATES`.
    """
    prompt = context.prompt(question)
    best = Index(context.task, history.items).best(prompt, len(history.items), k)
    return with_items(context, [history.items[n] for n in best], prompt, template)


def retrieving_pairs(context: MethodContext, history: History, k: int, template: str) -> list[Pair]:
    """Make training pairs whose prompts show what retrieval finds among earlier items.

    Args:
        context: Model and task.
        history: The user's history; answered questions see all of its items, an item sees those before it.
        k: Number of items at most.
        template: One of `TEMPLATES`.
    """
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
    """Mixin before a trained method: prompts show `k` retrieved items, in training earlier ones only."""

    context: MethodContext
    values: Values

    def pairs(self, history: History) -> list[Pair]:
        """Make the user's training pairs."""
        return retrieving_pairs(self.context, history, self.values["k"], PAIRS)

    def prompt(self, history: History, question: str) -> Prompt:
        """Make the prompt of a question.

        Args:
            history: The user's history.
            question: Question as in the benchmark.
        """
        return retrieving_prompt(self.context, history, question, self.values["k"], PAIRS)

    def shown(self) -> Any:
        """Return the values that the prompts depend on."""
        return self.values["k"]
