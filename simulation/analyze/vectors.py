"""Delta-vectors (PerFit, ICLR 2026): how text before a question moves the state of its last token."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle

import torch

from fedperfit.edge.chameleon.states import last_states
from fedperfit.edge.engine.answering import MAX_NEW_TOKENS
from fedperfit.edge.engine.examples import encode
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.tasks import Pair
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
    queries: tuple[Ids, ...]
    """Prompts of the questions, without a start token."""
    contexts: Mapping[str, tuple[Ids, ...]]
    """Text before each of the queries, by kind of text, without a start token."""


def delta_vectors(
    base: BaseModel, users: Sequence[UserTexts], on_user: Callable[[], None] = lambda: None
) -> dict[str, torch.Tensor]:
    """Compute v_i = mean_q h_l(last | text + q) - mean_q h_l(last | q) by kind of text; 0 without text.

    Args:
        base: The frozen base model.
        users: Users with their questions and texts.
        on_user: Called after each user.

    Returns:
        Vectors by kind of text: (users, layers, d) in fp32.
    """
    start = base.start
    vectors: dict[str, list[torch.Tensor]] = {kind: [] for kind in users[0].contexts}
    for user in users:
        alone = [(*start, *query) for query in user.queries]
        after = {
            kind: [(*start, *text, *query) for text, query in zip(texts, user.queries, strict=True)]
            for kind, texts in user.contexts.items()
        }
        states: dict[Ids, torch.Tensor] = {}  # each (layers, d)
        for rows in (alone, chain(*after.values())):  # apart, for short rows are not padded to long ones
            new = [row for row in dict.fromkeys(rows) if row not in states]
            states |= zip(new, last_states(base, new).unbind(1), strict=True)
        origin = torch.stack([states[row] for row in alone]).mean(0)
        for kind, longer in after.items():
            vectors[kind].append(torch.stack([states[row] for row in longer]).mean(0) - origin)
        on_user()
    return {kind: torch.stack(of_users) for kind, of_users in vectors.items()}


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
    shown = [_ids(context, with_items(context, _latest(target), "", template)) for target, _ in seen]
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
        users.append(UserTexts(target, tuple(query for query, _ in rows), contexts))
    return users


def _rows(context: MethodContext, target: Target, queries: int, template: str) -> list[tuple[Ids, Ids]]:
    """Return query and history of each question that leaves room for an item."""
    rows = []
    for question in target.questions[:queries]:
        prompt = context.prompt(question)
        shown = _ids(context, with_items(context, _latest(target), prompt, template)[: -len(prompt)])
        if shown:
            (row,) = encode(context.base, [Pair(prompt, "")], reserve=MAX_NEW_TOKENS)
            rows.append((row.prompt[len(context.base.start) :], shown))
    return rows


def _others(shown: Sequence[Ids], place: int, least: int) -> Ids:
    """Return at least `least` tokens of the users after `place`; the text ends with the next user's."""
    text: Ids = ()
    turns = cycle([*shown[place + 1 :], *shown[:place]])
    while len(text) < least:
        text = next(turns) + text
    return text


def _latest(target: Target) -> list[dict[str, object]]:
    return target.history.items[::-1]


def _ids(context: MethodContext, text: str) -> Ids:
    return tuple(context.base.tokenizer(text, add_special_tokens=False)["input_ids"])
