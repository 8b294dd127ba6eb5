"""Hidden states, keys and values of items, computed once and reused over steps, epochs, fits and stages.

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

from fedperfit.edge.engine.building import CachedItem, build_items
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.paths.path import Path
from fedperfit.edge.engine.prefix import Prefix, common_prefix, forgets, run_prefix
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.config import attention_sizes, text_config
from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.shift.positions import Positions

logger = logging.getLogger("fedperfit.edge")

_BUILD_TOKENS = 4096
"""Tokens run at once while building items."""
_SHARE = 0.25
"""Share of the device's memory that all processes on it may keep items in by default."""
PROCESSES_VARIABLE = "FEDPERFIT_PROCESSES"
"""Environment variable with the number of processes that share the device; who starts several sets it."""
_STATES = 16
"""Vectors as wide as hidden states that a layer holds of each token for the gradient, about."""


EMBEDDINGS = -1
"""Entry layer of a step that runs every decoder layer, from the tokens on."""


class CachePlan(Enum):
    """How much is kept of each item, from most to least memory."""

    CONTEXTS = "keys and values of the context, states of the rest"
    STATES = "hidden states at the first shifted layer only"
    NOTHING = "nothing, every step recomputes whole rows"
    ALONE = "nothing, every step recomputes each row by itself"


@dataclass(frozen=True)
class ItemKind:
    """Use that items are prepared for; only items of one kind can be used together."""

    entry: int
    """First shifted decoder layer, or `EMBEDDINGS`."""
    positions: Positions
    """Shifted tokens of each prompt."""
    plan: CachePlan
    prefix: tuple[int, ...]
    """Tokens all rows begin with, run once for all of them."""

    def start(self, example: Example) -> int:
        """Number of the first token of an example's row that a step runs."""
        if self.plan is CachePlan.CONTEXTS:
            return context_length(example.prompt, self.positions.last)
        return len(self.prefix)


@dataclass(frozen=True)
class Prepared:
    """Prepared items of examples, ready for training steps."""

    kind: ItemKind
    prefix: Prefix | None
    """Run of the shared prefix: through all layers with positions `lM`, else as far as the entry layer."""
    items: dict[Example, CachedItem]
    """Prepared item of each example."""


def context_length(prompt: Sequence[int], last: int) -> int:
    """Number of tokens of a prompt that positions `lM` leave untouched in every layer.

    Args:
        prompt: token ids.
        last: M; at least the last token, which predicts the target, is always run.
    """
    return max(0, len(prompt) - max(1, last))


def default_budget(device: torch.device) -> int:
    """Bytes that prepared items may take: this process's part of a quarter of the device's memory."""
    share = _SHARE / int(os.environ.get(PROCESSES_VARIABLE, "1"))
    if device.type == "cuda":
        return int(share * torch.cuda.get_device_properties(device).total_memory)
    return int(share * psutil.virtual_memory().total)


class ItemCache:
    """Prepared items of one model within a budget of bytes; the least recently used make room."""

    def __init__(self, base: BaseModel, budget: int | None = None) -> None:
        """Start an empty cache.

        Args:
            base: the frozen model.
            budget: bytes; None takes `default_budget`, 0 keeps nothing.
        """
        self.base = base
        """The frozen model."""
        self.budget = default_budget(base.device) if budget is None else budget
        """Most bytes that are kept."""
        self.bytes = 0
        """Bytes that are kept now."""
        self.most_bytes = self.most_items = 0
        """Most bytes and most items that were ever kept at once."""
        self._prefixes: dict[ItemKind, Prefix | None] = {}
        self._items: OrderedDict[tuple[ItemKind, Example], CachedItem] = OrderedDict()
        self._said: set[CachePlan] = set()

    def prepare(
        self,
        users: Sequence[Sequence[Example]],
        entry: int,
        positions: Positions,
        prefix: Sequence[int] | None = None,
        path: Path = Path.FAST,
    ) -> Prepared:
        """Prepare the examples of all users, keeping as much of each as the budget allows.

        Args:
            users: examples of each user; items are built user by user.
            entry: first shifted decoder layer; `EMBEDDINGS` keeps keys and values of every layer, no states.
            positions: shifted tokens of each prompt.
            prefix: tokens all prompts are known to begin with; by default whatever they have in common. A
                known prefix makes an item's bits independent of the items that it is built beside.
            path: way in which the steps run; only the fast one has anything kept.

        Returns:
            The items of all examples, with their shared prefix.
        """
        wanted = list(dict.fromkeys(example for user in users for example in user))
        if path is Path.FAST:
            kind = self._choose(wanted, entry, positions, prefix)
        else:
            kind = ItemKind(entry, positions, CachePlan.ALONE, ())
        if kind.plan in (CachePlan.NOTHING, CachePlan.ALONE):
            return Prepared(kind, None, {example: CachedItem(0, None, None) for example in wanted})
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
        """Drop all items and prefixes."""
        self._items.clear()
        self._prefixes.clear()
        self.bytes = 0

    def size(self, example: Example, kind: ItemKind) -> int:
        """Bytes that an example's item takes, known before it is built.

        Args:
            example: training pair as token ids.
            kind: use that the item is prepared for.
        """
        config = text_config(self.base.model.config)
        attention = attention_sizes(config)
        start = kind.start(example)
        run = 0 if kind.entry == EMBEDDINGS else len(example.prompt) + len(example.target) - 1 - start
        keys = attention.key_value_heads * attention.head_size
        above = len(decoder_layers(self.base.model)) - 1 - kind.entry
        context = 2 * above * keys * (start - len(kind.prefix))
        return int(self.base.model.dtype.itemsize * (config.hidden_size * run + context))

    def step_bytes(self, example: Example, kind: ItemKind) -> int:
        """Bytes that a row is reckoned to take while a training step holds it for the gradient.

        These are, above the entry layer, keys and values of all its tokens, side by side and again where
        several heads share them, and the states inside the layers of those tokens that are run; and the
        scores of its target's tokens, as they are, normalised, and their gradient.

        Args:
            example: training pair as token ids.
            kind: use that its item is prepared for.
        """
        config = text_config(self.base.model.config)
        attention = attention_sizes(config)
        shared = attention.heads > attention.key_value_heads
        heads = 2 * attention.key_value_heads + (attention.heads if shared else 0)
        above = len(decoder_layers(self.base.model)) - 1 - kind.entry
        tokens = len(example.prompt) + len(example.target) - 1
        keys = 2 * heads * attention.head_size * tokens
        states = _STATES * config.hidden_size * (tokens - kind.start(example))
        scores = 12 * len(example.target) * config.vocab_size
        return int(self.base.model.dtype.itemsize * above * (keys + states) + scores)

    def _choose(
        self, examples: Sequence[Example], entry: int, positions: Positions, prefix: Sequence[int] | None
    ) -> ItemKind:
        """The kind that keeps the most within the budget, an existing one where it serves."""
        longest = max(len(example.prompt) + len(example.target) for example in examples)
        whole_rows = not self._keeps_keys or forgets(self.base, longest)
        shared = () if whole_rows else _shared_prefix(examples, positions, prefix)
        plans = [CachePlan.CONTEXTS, CachePlan.STATES]
        if whole_rows or positions.first or not self._one_width:
            plans.remove(CachePlan.CONTEXTS)
        for plan in plans:
            kind = self._existing_kind(entry, positions, plan, shared)
            kind = kind or ItemKind(entry, positions, plan, shared)
            if self.budget and sum(self.size(example, kind) for example in examples) <= self.budget:
                return kind
            self._say(plan)
        return ItemKind(entry, positions, CachePlan.NOTHING, ())

    def _existing_kind(
        self, entry: int, positions: Positions, plan: CachePlan, shared: tuple[int, ...]
    ) -> ItemKind | None:
        """The kind with the longest prefix among those of former items that serve rows beginning `shared`."""
        kinds = [
            kind
            for kind in self._prefixes
            if (kind.entry, kind.positions, kind.plan) == (entry, positions, plan)
            and kind.prefix == shared[: len(kind.prefix)]
            and len(kind.prefix) >= positions.first
        ]
        return max(kinds, key=lambda kind: len(kind.prefix), default=None)

    def _say(self, refused: CachePlan) -> None:
        """Warn, once per plan, that the budget is too small for it and so each step has more work."""
        if self.budget and refused not in self._said:
            self._said.add(refused)
            gib = self.budget / 2**30
            logger.warning("a cache of %.2f GiB is too small to keep %s", gib, refused.value)

    @cached_property
    def _keeps_keys(self) -> bool:
        """Whether every layer of the model keeps keys and values, and no state of another kind."""
        return self._one_token is not None

    @cached_property
    def _one_width(self) -> bool:
        """Whether keys and values are of one shape in every layer, so that a context is one tensor."""
        kept = self._one_token.layers.values() if self._one_token else ()
        return len({tensor.shape for layer in kept for tensor in layer}) == 1

    @cached_property
    def _one_token(self) -> Prefix | None:
        return run_prefix(self.base, (0,), 0, range(len(decoder_layers(self.base.model))))

    def _make_room(self, kind: ItemKind, wanted: Sequence[Example]) -> None:
        needed = sum(self.size(example, kind) for example in wanted if (kind, example) not in self._items)
        kept = {(kind, example) for example in wanted}
        for key in [key for key in self._items if key not in kept]:
            if self.bytes + needed <= self.budget:
                break
            self.bytes -= self._items.pop(key).bytes

    def _build(self, kind: ItemKind, missing: list[Example]) -> None:
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


def _shared_prefix(
    examples: Sequence[Example], positions: Positions, prefix: Sequence[int] | None
) -> tuple[int, ...]:
    """Tokens that the contexts of all examples, and `prefix` where given, begin with.

    None where the first shifted positions reach beyond them.
    """
    contexts = [e.prompt[: context_length(e.prompt, positions.last)] for e in examples]
    shared = common_prefix([*contexts, *([] if prefix is None else [prefix])])
    return contexts[0][:shared] if shared >= positions.first else ()
