"""What a frozen model makes of items, computed once and reused over steps, epochs, fits and stages.

Below the first shifted layer, the entry layer, nothing ever changes: an item keeps the hidden states that
leave it (the layer cache; reference, section 2a). With positions `lM` nothing before the last M prompt
tokens changes in any layer: an item keeps their keys and values above the entry layer, and states of the
rest only (the context cache; section 2b). A step then runs the layers above over what is left.

Neither depends on any shift, so an item serves the collective stage, the personal stage and every release.
Exact up to the rounding of differently shaped matrix products; tests compare with recomputing everything.
"""

import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import psutil
import torch

from fedperfit.edge.engine.building import Item, build_items
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.prefix import Prefix, common_prefix, forgets, run_prefix
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.config import attention_sizes, text_config
from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.shift.positions import Positions

logger = logging.getLogger("fedperfit.edge")

_BUILD_TOKENS = 4096
"""Tokens run at once while building."""
_SHARE = 0.25
"""Of the device's memory, the default budget of all processes on it."""
PROCESSES_VARIABLE = "FEDPERFIT_PROCESSES"
"""Environment variable: how many processes share the device; whoever starts more than one sets it."""


EMBEDDINGS = -1
"""The entry layer of those who run every layer: what enters is the tokens themselves."""


class Plan(Enum):
    """What is kept of an item, from most to least memory."""

    CONTEXTS = "keys and values of the context, states of the rest"
    STATES = "hidden states at the first shifted layer only"
    NOTHING = "nothing, every step recomputes whole rows"


@dataclass(frozen=True)
class Kind:
    """What items are prepared for; those of one kind can be used together."""

    entry: int
    """The first shifted decoder layer, or `EMBEDDINGS`."""
    positions: Positions
    plan: Plan
    prefix: tuple[int, ...]
    """What all their rows begin with, run apart."""

    def start(self, example: Example) -> int:
        """The first token of an example's row that a step runs."""
        if self.plan is Plan.CONTEXTS:
            return context_length(example.prompt, self.positions.last)
        return len(self.prefix)


@dataclass(frozen=True)
class Prepared:
    """Examples ready for training."""

    kind: Kind
    prefix: Prefix | None
    """Constant where positions are `lM`, else as far as the entry layer."""
    items: dict[Example, Item]


def context_length(prompt: Sequence[int], last: int) -> int:
    """Tokens of `prompt` before its last `last`, and before its last one; `lM` leaves them untouched."""
    return max(0, len(prompt) - max(1, last))


def default_budget(device: torch.device) -> int:
    """Bytes items may take: this process's part of a quarter of the device's memory."""
    share = _SHARE / int(os.environ.get(PROCESSES_VARIABLE, "1"))
    if device.type == "cuda":
        return int(share * torch.cuda.get_device_properties(device).total_memory)
    return int(share * psutil.virtual_memory().total)


class ItemCache:
    """Prepared items of one model within a budget of bytes; the longest unused make room."""

    def __init__(self, base: BaseModel, budget: int | None = None) -> None:
        """budget: bytes; None takes `default_budget`, 0 keeps nothing."""
        self.base = base
        self.budget = default_budget(base.device) if budget is None else budget
        self.bytes = 0
        self.most_bytes = self.most_items = 0
        """The most that were ever kept at once."""
        self._prefixes: dict[Kind, Prefix | None] = {}
        self._items: OrderedDict[tuple[Kind, Example], Item] = OrderedDict()
        self._said: set[Plan] = set()

    def prepare(
        self,
        users: Sequence[Sequence[Example]],
        entry: int,
        positions: Positions,
        prefix: Sequence[int] | None = None,
    ) -> Prepared:
        """The items of all users' examples; what is kept of each is decided by what the budget allows.

        entry: the first shifted layer; `EMBEDDINGS` keeps keys and values of every layer, and no states.
        beginning: what their prompts are known to begin with; by default whatever they have in common.
            Known, it does not depend on the company an item is built in, nor do the item's bits.
        """
        wanted = list(dict.fromkeys(example for user in users for example in user))
        kind = self._choose(wanted, entry, positions, prefix)
        if kind.plan is Plan.NOTHING:
            return Prepared(kind, None, {example: Item(0, None, None) for example in wanted})
        if kind not in self._prefixes:
            depth = entry + 1 if positions.first else len(decoder_layers(self.base.model))
            self._prefixes[kind] = run_prefix(self.base, kind.prefix, entry, range(depth))
        self._make_room(kind, wanted)
        for examples in users:
            self._build(kind, [e for e in dict.fromkeys(examples) if (kind, e) not in self._items])
        items = {example: self._items[kind, example] for example in wanted}
        for example in wanted:
            self._items.move_to_end((kind, example))
        self.most_bytes = max(self.most_bytes, self.bytes)
        self.most_items = max(self.most_items, len(self._items))
        return Prepared(kind, self._prefixes[kind], items)

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self._prefixes.clear()
        self.bytes = 0

    def size(self, example: Example, kind: Kind) -> int:
        """Bytes an example's item takes."""
        config = text_config(self.base.model.config)
        attention = attention_sizes(config)
        start = kind.start(example)
        run = 0 if kind.entry == EMBEDDINGS else len(example.prompt) + len(example.target) - 1 - start
        keys = attention.key_value_heads * attention.head_size
        above = len(decoder_layers(self.base.model)) - 1 - kind.entry
        context = 2 * above * keys * (start - len(kind.prefix))
        return int(self.base.model.dtype.itemsize * (config.hidden_size * run + context))

    def _choose(
        self,
        wanted: Sequence[Example],
        entry: int,
        positions: Positions,
        prefix: Sequence[int] | None,
    ) -> Kind:
        """The kind that keeps the most within the budget; one already there wherever it will do."""
        longest = max(len(example.prompt) + len(example.target) for example in wanted)
        rigid = not self._keeps_keys or forgets(self.base, longest)
        contexts = [e.prompt[: context_length(e.prompt, positions.last)] for e in wanted]
        shared = common_prefix([*contexts, *([] if prefix is None else [prefix])])
        if rigid or shared < positions.first:
            shared = 0
        shared_prefix = contexts[0][:shared]
        for plan in (Plan.CONTEXTS, Plan.STATES):
            if plan is Plan.CONTEXTS and (rigid or positions.first):
                continue
            there = [
                kind
                for kind in self._prefixes
                if (kind.entry, kind.positions, kind.plan) == (entry, positions, plan)
                and kind.prefix == shared_prefix[: len(kind.prefix)]
                and len(kind.prefix) >= positions.first
            ]
            kind = max(there, key=lambda known: len(known.prefix), default=None) or Kind(
                entry, positions, plan, shared_prefix
            )
            if self.budget and sum(self.size(example, kind) for example in wanted) <= self.budget:
                return kind
            self._say(plan)
        return Kind(entry, positions, Plan.NOTHING, ())

    def _say(self, refused: Plan) -> None:
        """Tell, once per plan, that the budget asks for more work in each step."""
        if self.budget and refused not in self._said:
            self._said.add(refused)
            gib = self.budget / 2**30
            logger.warning("a cache of %.2f GiB is too small to keep %s", gib, refused.value)

    @cached_property
    def _keeps_keys(self) -> bool:
        """Whether the model keeps keys and values, and not state of another kind."""
        return run_prefix(self.base, (0,), 0, range(len(decoder_layers(self.base.model)))) is not None

    def _make_room(self, kind: Kind, wanted: Sequence[Example]) -> None:
        needed = sum(self.size(example, kind) for example in wanted if (kind, example) not in self._items)
        kept = {(kind, example) for example in wanted}
        for key in [key for key in self._items if key not in kept]:
            if self.bytes + needed <= self.budget:
                break
            self.bytes -= self._items.pop(key).bytes

    def _build(self, kind: Kind, missing: list[Example]) -> None:
        """Build one user's items, rows of similar length together."""
        missing.sort(key=lambda example: len(example.prompt) + len(example.target))
        while missing:
            rows = max(1, _BUILD_TOKENS // (len(missing[-1].prompt) + len(missing[-1].target)))
            chunk, missing = missing[-rows:], missing[:-rows]
            starts = [kind.start(example) for example in chunk]
            built = build_items(self.base, chunk, starts, kind.entry, self._prefixes[kind])
            for example, item in zip(chunk, built, strict=True):
                self._items[kind, example] = item
                self.bytes += item.bytes
