"""Delta-vectors: how text before a question moves the state of its last token (reference, section 4)."""

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
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.compare.prompts import with_items
from fedperfit.simulation.data.participants import Target

HISTORY, RANDOM, OTHER = "history", "random text", "another's history"
TEXTS = (HISTORY, RANDOM, OTHER)
"""What stands before a question: the user's own history, and in its place two controls of as many tokens."""

Ids = tuple[int, ...]
"""Token ids."""


@dataclass(frozen=True)
class Asked:
    """One user's questions, each after texts of the same length."""

    target: Target
    queries: tuple[Ids, ...]
    contexts: Mapping[str, tuple[Ids, ...]]
    """By kind of text, what stands before each of the queries. Neither has a start token."""


def delta_vectors(
    base: BaseModel, users: Sequence[Asked], on_user: Callable[[], None] = lambda: None
) -> dict[str, torch.Tensor]:
    """By kind of text (users, layers, d) fp32: v_i = mean_q h_l(last | text + q) - mean_q h_l(last | q).

    A text is run once for all layers; without text v_i is exactly zero.
    """
    start = () if base.tokenizer.bos_token_id is None else (base.tokenizer.bos_token_id,)
    found: dict[str, list[torch.Tensor]] = {kind: [] for kind in users[0].contexts}
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
            found[kind].append(torch.stack([states[row] for row in longer]).mean(0) - origin)
        on_user()
    return {kind: torch.stack(vectors) for kind, vectors in found.items()}


def asked(context: MethodContext, targets: Sequence[Target], queries: int, template: str) -> list[Asked]:
    """Each target's first questions after their latest items, as many as fit, and after the controls.

    Random text: tokens drawn from all these users' items as they are shown. Another's history: of the next
    user, or users where one has too little. Both are one text per user, as a history is, of which each
    question gets the last tokens, as many as its history has.
    Questions that leave no room for an item are left out, and users who have none left.
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
        users.append(Asked(target, tuple(query for query, _ in rows), contexts))
    return users


def _rows(context: MethodContext, target: Target, queries: int, template: str) -> list[tuple[Ids, Ids]]:
    """Query and history of each question that leaves room for an item."""
    rows = []
    for question in target.questions[:queries]:
        prompt = context.prompt(question)
        shown = _ids(context, with_items(context, _latest(target), prompt, template)[: -len(prompt)])
        if shown:
            (row,) = encode(context.base, [Pair(prompt, "")], reserve=MAX_NEW_TOKENS)
            start = context.base.tokenizer.bos_token_id is not None
            rows.append((row.prompt[start:], shown))
    return rows


def _others(shown: Sequence[Ids], place: int, least: int) -> Ids:
    """At least so many tokens of the users after `place`, whose text ends with the next one's."""
    text: Ids = ()
    turns = cycle([*shown[place + 1 :], *shown[:place]])
    while len(text) < least:
        text = next(turns) + text
    return text


def _latest(target: Target) -> list[dict[str, object]]:
    return target.history.items[::-1]


def _ids(context: MethodContext, text: str) -> Ids:
    return tuple(context.base.tokenizer(text, add_special_tokens=False)["input_ids"])
