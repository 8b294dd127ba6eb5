"""Delta-vectors (PerFit, ICLR 2026): how text before a question moves the state of its last token."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle

import torch

from fedperfit.edge.chameleon.states import last_states
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.prefix import common_prefix
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.prompt_tokens import prompt_tokens
from fedperfit.protocol.tasks import Pair, Prompt, asked_text
from fedperfit.simulation.compare.building_blocks.prompts import with_items
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.data.participants import Target

HISTORY, RANDOM, OTHER = "history", "random text", "another's history"
TEXTS = (HISTORY, RANDOM, OTHER)
"""Kinds of text before a question: the user's own history, and two controls of as many tokens."""

Ids = tuple[int, ...]
"""Token ids of a text."""


@dataclass(frozen=True)
class UserTexts:
    """A user's questions, with texts of equal length to stand before each."""

    target: Target
    start: Ids
    """Tokens that every row begins with: in the form `chat`, all before the text of the user's turn."""
    queries: tuple[Ids, ...]
    """Prompts of the questions, without the start."""
    contexts: Mapping[str, tuple[Ids, ...]]
    """Text between the start and each of the queries, by kind of text."""


def delta_vectors(base: BaseModel, user: UserTexts) -> dict[str, torch.Tensor]:
    """Compute v = mean_q h_l(last | text + q) - mean_q h_l(last | q) by kind of text; 0 without text.

    Args:
        base: The frozen base model.
        user: A user's questions and texts.

    Returns:
        The user's vector by kind of text: (layers, d) in fp32.
    """
    alone = [(*user.start, *query) for query in user.queries]
    after = {
        kind: [(*user.start, *text, *query) for text, query in zip(texts, user.queries, strict=True)]
        for kind, texts in user.contexts.items()
    }
    states: dict[Ids, torch.Tensor] = {}  # each (layers, d)
    for rows in (alone, chain(*after.values())):  # apart, for short rows are not padded to long ones
        new = [row for row in dict.fromkeys(rows) if row not in states]
        states |= zip(new, last_states(base, new).unbind(1), strict=True)
    origin = torch.stack([states[row] for row in alone]).mean(0)
    return {
        kind: torch.stack([states[row] for row in longer]).mean(0) - origin for kind, longer in after.items()
    }


def user_texts(
    context: MethodContext, targets: Sequence[Target], queries: int, template: str
) -> list[UserTexts]:
    """Put each target's latest items before their first questions, and likewise the controls.

    As many items are taken as fit. Random text: tokens drawn from all these users' items as they are shown.
    Another's history: of the next user, or users where one has too little. Both are one text per user, as a
    history is; each question gets the last tokens of it, as many as its history has. Questions that leave no
    room for an item are left out, and users who have none left.

    Args:
        context: Model, task, and seed of the random text.
        targets: Users.
        queries: Questions per user at most.
        template: Form in which items are shown.
    """
    seen = [(target, rows) for target in targets if (rows := _rows(context, target, queries, template))]
    shown = [_shown(context, target, "", template) for target, _ in seen]
    start = _start(context, seen[0][0]) if seen else ()
    corpus = list(chain(*shown))
    users = []
    for place, (target, rows) in enumerate(seen):
        lengths = [len(context) for _, context in rows]
        drawn = random.Random(f"{context.seed}/{target.history.name}").choices(corpus, k=max(lengths))
        others = _others(shown, place, max(lengths))
        contexts = {
            HISTORY: tuple(context for _, context in rows),
            RANDOM: tuple(tuple(drawn[-length:]) for length in lengths),
            OTHER: tuple(others[-length:] for length in lengths),
        }
        users.append(UserTexts(target, start, tuple(query for query, _ in rows), contexts))
    return users


def _rows(context: MethodContext, target: Target, queries: int, template: str) -> list[tuple[Ids, Ids]]:
    """Return query and history of each question that leaves room for an item."""
    rows = []
    for question in target.questions[:queries]:
        prompt = context.prompt(question)
        shown = _shown(context, target, prompt, template)
        if shown:
            (row,) = encode(context.base, [Pair(prompt, "")], reserve=context.task.answer_tokens)
            rows.append((row.prompt[len(_start(context, target)) :], shown))
    return rows


def _start(context: MethodContext, target: Target) -> Ids:
    """Return the tokens that every prompt of the task begins with, before anything that is asked."""
    prompt = context.prompt(target.questions[0])
    if isinstance(prompt, str):
        return tuple(context.base.start)
    unlike = [(*prompt[:-1], prompt[-1]._replace(text=text)) for text in ("a", "Zz", "9")]
    rows = prompt_tokens(context.base, unlike)
    return tuple(rows[0][: common_prefix(rows)])


def _shown(context: MethodContext, target: Target, prompt: Prompt, template: str) -> Ids:
    """Return the tokens of the target's latest items, as many as fit before a prompt."""
    text = asked_text(with_items(context, _latest(target), prompt, template))
    items = text.removesuffix(asked_text(prompt))
    return tuple(context.base.tokenizer(items, add_special_tokens=False)["input_ids"])


def _others(shown: Sequence[Ids], place: int, least: int) -> Ids:
    """Return at least `least` tokens of the users after `place`; the text ends with the next user's."""
    text: Ids = ()
    turns = cycle([*shown[place + 1 :], *shown[:place]])
    while len(text) < least:
        text = next(turns) + text
    return text


def _latest(target: Target) -> list[dict[str, object]]:
    return target.history.items[::-1]
