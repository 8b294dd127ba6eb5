"""What a frozen model makes of training items, computed once and reused over steps, epochs and fits.

Below the first shifted layer, the entry layer, nothing ever changes: an item keeps the hidden states that
leave it (the layer cache; reference, section 2a). With positions `lM` nothing before the last M prompt
tokens changes in any layer: an item keeps their keys and values above the entry layer, and states of the
rest only (the context cache; section 2b). A step then runs the layers above over what is left.

Neither depends on any shift, so an item serves the collective stage, the personal stage and every release.
Exact up to the rounding of differently shaped matrix products; tests compare with recomputing everything.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import psutil
import torch

from edge.examples import Example, places
from edge.prefix import (
    Prefix,
    beginning_of,
    common_prefix,
    forgets,
    recorder,
    run_prefix,
    starting_with,
    whole_layers,
)
from protocol.base_model import BaseModel
from protocol.layers import changing, decoder_layers, running
from protocol.positions import Positions

logger = logging.getLogger("fedperfit.edge")

_BUILD_TOKENS = 4096
"""Tokens run at once while building."""
_SHARE = 0.25
"""Of the device's memory, the default budget."""


class Plan(Enum):
    """What is kept of an item, from most to least memory."""

    CONTEXTS = "keys and values of the context, states of the rest"
    STATES = "hidden states at the first shifted layer only"
    NOTHING = "nothing, every step recomputes whole rows"


@dataclass(frozen=True)
class Item:
    """One example, prepared."""

    start: int
    """First token of its row that a step runs."""
    hidden: torch.Tensor | None
    """(tokens run, d) output of the entry layer, before any shift."""
    context: torch.Tensor | None
    """(2 * layers above, heads, tokens, head size): keys and values between the prefix and `start`."""

    @property
    def bytes(self) -> int:
        """Memory taken."""
        return sum(t.nbytes for t in (self.hidden, self.context) if t is not None)


@dataclass(frozen=True)
class Prepared:
    """Examples ready for training."""

    entry: int
    """The first shifted decoder layer."""
    positions: Positions
    plan: Plan
    prefix: Prefix | None
    """What all rows begin with; constant where positions are `lM`, else as far as the entry layer."""
    items: dict[Example, Item]


def context_length(prompt: Sequence[int], last: int) -> int:
    """Tokens of `prompt` before its last `last`, and before its last one; `lM` leaves them untouched."""
    return max(0, len(prompt) - max(1, last))


def default_budget(device: torch.device) -> int:
    """Bytes items may take: a quarter of the device's memory."""
    if device.type == "cuda":
        return int(_SHARE * torch.cuda.get_device_properties(device).total_memory)
    return int(_SHARE * psutil.virtual_memory().total)


class ItemCache:
    """Prepared items of one model within a budget of bytes; the longest unused make room."""

    def __init__(self, base: BaseModel, budget: int | None = None) -> None:
        """budget: bytes; None takes `default_budget`, 0 keeps nothing."""
        self.base = base
        self.budget = default_budget(base.device) if budget is None else budget
        self.bytes = 0
        self.most_bytes = self.most_items = 0
        """The most that were ever kept at once."""
        self._kind: tuple[int, Positions, Plan] | None = None
        self._prefix: Prefix | None = None
        self._said: set[Plan] = set()
        self._items: OrderedDict[Example, Item] = OrderedDict()

    def prepare(
        self,
        users: Sequence[Sequence[Example]],
        entry: int,
        positions: Positions,
        beginning: Sequence[int] | None = None,
    ) -> Prepared:
        """The items of all users' examples; what is kept of each is decided by what the budget allows.

        beginning: what their prompts are known to begin with; by default whatever they have in common.
            Known, it does not depend on the company an item is built in, nor do the item's bits.
        """
        wanted = list(dict.fromkeys(example for user in users for example in user))
        for plan in (Plan.CONTEXTS, Plan.STATES):
            if self.budget and self._prepare(users, wanted, (entry, positions, plan), beginning):
                if plan is Plan.STATES and not positions.first and not self._forgets(wanted):
                    self._say(plan)
                for example in wanted:
                    self._items.move_to_end(example)
                items = {example: self._items[example] for example in wanted}
                return Prepared(entry, positions, plan, self._prefix, items)
        self.clear()
        if self.budget:
            self._say(Plan.NOTHING)
        return Prepared(entry, positions, Plan.NOTHING, None, {e: Item(0, None, None) for e in wanted})

    def _say(self, plan: Plan) -> None:
        """Tell, once per plan, that the budget asks for more work in each step."""
        if plan not in self._said:
            self._said.add(plan)
            gib = self.budget / 2**30
            logger.warning("a cache of %.2f GiB is too small for these items: keeping %s", gib, plan.value)

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self.bytes, self._kind, self._prefix = 0, None, None

    def _prepare(
        self,
        users: Sequence[Sequence[Example]],
        wanted: list[Example],
        kind: tuple[int, Positions, Plan],
        beginning: Sequence[int] | None,
    ) -> bool:
        entry, positions, plan = kind
        if plan is Plan.CONTEXTS and (positions.first or self._forgets(wanted)):
            return False
        self._set_kind(wanted, kind, beginning)
        missing = [example for example in wanted if example not in self._items]
        held = sum(self._items[example].bytes for example in wanted if example in self._items)
        needed = sum(self.size(e, entry, positions, plan, self._shared) for e in missing)
        if held + needed > self.budget:
            return False
        kept = set(wanted)
        for example in [e for e in self._items if e not in kept]:
            if self.bytes + needed <= self.budget:
                break
            self.bytes -= self._items.pop(example).bytes
        for examples in users:
            missing = [example for example in dict.fromkeys(examples) if example not in self._items]
            missing.sort(key=lambda e: len(e.prompt) + len(e.target))
            while missing:
                rows = max(1, _BUILD_TOKENS // (len(missing[-1].prompt) + len(missing[-1].target)))
                chunk, missing = missing[-rows:], missing[:-rows]
                for example, item in zip(chunk, self._build(chunk), strict=True):
                    self._items[example] = item
                    self.bytes += item.bytes
        self.most_bytes = max(self.most_bytes, self.bytes)
        self.most_items = max(self.most_items, len(self._items))
        return True

    def _forgets(self, wanted: Sequence[Example]) -> bool:
        """Whether keys cannot be laid side by side: the model has a window, or state of another kind."""
        return not self._keeps_keys or forgets(self.base, max(len(e.prompt) + len(e.target) for e in wanted))

    @cached_property
    def _keeps_keys(self) -> bool:
        return run_prefix(self.base, (0,), 0, range(len(decoder_layers(self.base.model)))) is not None

    def _set_kind(
        self, wanted: list[Example], kind: tuple[int, Positions, Plan], beginning: Sequence[int] | None
    ) -> None:
        """Make the prefix one that all items begin with; a change of kind or prefix forgets the items."""
        entry, positions, _ = kind
        contexts: list[Sequence[int]] = [e.prompt[: context_length(e.prompt, positions.last)] for e in wanted]
        if beginning is not None:
            contexts.append(beginning)
        if self._kind == kind and self._items:
            contexts.append(self._prefix.tokens if self._prefix else ())
        shared = common_prefix(contexts)
        if shared < positions.first or self._forgets(wanted):
            shared = 0
        tokens = tuple(contexts[0][:shared])
        if self._kind == kind and self._items and tokens == (self._prefix.tokens if self._prefix else ()):
            return
        self.clear()
        depth = len(decoder_layers(self.base.model))
        self._kind = kind
        self._prefix = run_prefix(self.base, tokens, entry, range(entry + 1 if positions.first else depth))

    def size(self, example: Example, entry: int, positions: Positions, plan: Plan, shared: int = 0) -> int:
        """Bytes an example's item takes after `shared` tokens of prefix."""
        config = self.base.model.config
        config = getattr(config, "text_config", config)
        width = self.base.model.dtype.itemsize
        context = context_length(example.prompt, positions.last) - shared if plan is Plan.CONTEXTS else 0
        run = len(example.prompt) + len(example.target) - 1 - shared - context
        heads = config.num_attention_heads
        keys = getattr(config, "num_key_value_heads", None) or heads
        keys *= getattr(config, "head_dim", None) or config.hidden_size // heads
        above = len(decoder_layers(self.base.model)) - 1 - entry
        return int(width * (config.hidden_size * run + 2 * above * keys * context))

    @property
    def _shared(self) -> int:
        return len(self._prefix) if self._prefix else 0

    def _start(self, example: Example) -> int:
        assert self._kind is not None
        _, positions, plan = self._kind
        return context_length(example.prompt, positions.last) if plan is Plan.CONTEXTS else self._shared

    @torch.no_grad()
    def _build(self, chunk: list[Example]) -> list[Item]:
        assert self._kind is not None
        base, entry, depth = self.base, self._kind[0], len(decoder_layers(self.base.model))
        starts = [self._start(example) for example in chunk]
        shared = self._shared
        layers = beginning_of(self._prefix)
        longest = max(starts) - shared
        if longest:
            cache = starting_with(base, layers)
            ids = _padded([e.prompt[shared:start] for e, start in zip(chunk, starts, strict=True)])
            run = base.model(
                input_ids=ids.to(base.device), past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            whole = whole_layers(run.past_key_values, range(depth), shared + longest)
            layers = {number: [part] for number, part in whole.items()}
        rows = [(*e.prompt[start:], *e.target[:-1]) for e, start in zip(chunk, starts, strict=True)]
        lengths = torch.tensor([len(row) for row in rows])
        before = torch.arange(shared + longest) < torch.tensor(starts)[:, None]
        mask = torch.cat([before, torch.arange(int(lengths.max())) < lengths[:, None]], 1).to(base.device)
        ids = _padded(rows).to(base.device)
        outputs: list[torch.Tensor] = []
        below = {number: parts for number, parts in layers.items() if number <= entry}
        with running(base.model, range(entry + 1)), changing(base.model, [entry], recorder(outputs)):
            base.model(
                input_ids=ids,
                attention_mask=mask.long(),
                **places(base, mask, last=ids.shape[1]),
                past_key_values=starting_with(base, below),
                use_cache=bool(below),
                logits_to_keep=1,
            )
        above = [
            tensor for number in range(entry + 1, depth) for part in layers.get(number, ()) for tensor in part
        ]
        items = []
        for row, (start, length) in enumerate(zip(starts, lengths.tolist(), strict=True)):
            context = None
            if longest and above:
                context = torch.stack([tensor[row, :, shared:start] for tensor in above])
            items.append(Item(start, outputs[0][row, :length].clone(), context))
        return items


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """(rows, longest), padded on the right, where causality makes padding harmless."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=torch.long)
