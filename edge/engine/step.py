"""One training step of several users: runs what is not prepared, and returns the loss of each user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from fedperfit.edge.engine.building import CachedItem
from fedperfit.edge.engine.examples import Example, position_arguments
from fedperfit.edge.engine.items import CachePlan, Prepared
from fedperfit.edge.engine.paths.plain import plain_losses
from fedperfit.edge.engine.prefix import (
    KeysValues,
    Prefix,
    PrefixParts,
    contexts_side_by_side,
    starting_with,
    whole_layers,
)
from fedperfit.edge.engine.slab import BatchPositions, Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import Change, changing, decoder_layers, running
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shift import widened

_IGNORED = -100


@dataclass(frozen=True)
class StepRow:
    """One example of one user, with its prepared item."""

    user: int
    """Place of the user's shift in the slab."""
    example: Example
    item: CachedItem

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens that the step runs; the end token is predicted and never an input."""
        return (*self.example.prompt[self.item.start :], *self.example.target[:-1])


def step_losses(base: BaseModel, stack: Stack, prepared: Prepared, rows: Sequence[StepRow]) -> torch.Tensor:
    """Mean cross-entropy over each user's target tokens, under the user's shifts.

    Equal to running whole rows with the shifts injected, up to rounding; only the layers and tokens that
    are not prepared are run.

    Args:
        base: the frozen model.
        stack: shifts of all users.
        prepared: items of the rows' examples.
        rows: examples of users 0, 1, … without gaps.

    Returns:
        (users,) losses in nats.
    """
    if prepared.kind.plan is CachePlan.ALONE:
        return plain_losses(base, stack, [(row.user, row.example) for row in rows])
    logits = step_logits(base, stack, prepared, rows)
    labels = _left([row.example.target for row in rows], _IGNORED).to(base.device)
    losses = F.cross_entropy(
        widened(logits).flatten(0, 1), labels.flatten(), ignore_index=_IGNORED, reduction="none"
    )
    targets = torch.tensor([len(row.example.target) for row in rows])
    return _by_user(losses.view(labels.shape), targets, [row.user for row in rows])


def step_logits(base: BaseModel, stack: Stack, prepared: Prepared, rows: Sequence[StepRow]) -> torch.Tensor:
    """Logits (rows, most target tokens, vocabulary) that predict each row's target, at its last columns.

    Args:
        base: the frozen model.
        stack: shifts of all users.
        prepared: items of the rows' examples, run side by side.
        rows: examples of users 0, 1, … without gaps.
    """
    device = base.device
    depth = len(decoder_layers(base.model))
    owners = [row.user for row in rows]
    lengths = [len(row.tokens) for row in rows]
    width = max(lengths)
    columns = torch.arange(width)
    filled = columns >= width - torch.tensor(lengths)[:, None]
    targets = torch.tensor([len(row.example.target) for row in rows])
    shifted = _positions(prepared, filled & (columns < width + 1 - targets[:, None]))
    hidden = _hidden(rows)
    change = _change(stack, shifted, owners, device)
    prefix_parts, before = _prefix_parts(base, stack, prepared, rows)
    mask = torch.cat([before, filled], dim=1)
    inputs = {
        "attention_mask": mask.to(device).long(),
        "past_key_values": starting_with(base, prefix_parts),
        "use_cache": bool(prefix_parts),
        "logits_to_keep": torch.arange(width - int(targets.max()), width, device=device),
        **position_arguments(base, mask.to(device), last=width),
    }
    ran = range(prepared.kind.entry + 1 if hidden is not None else 0, depth)
    with running(base.model, ran, hidden), changing(base.model, stack.layers, change):
        ids = _left([row.tokens for row in rows]).to(device)
        logits: torch.Tensor = base.model(input_ids=ids, **inputs).logits
    return logits[:, -int(targets.max()) :]


def _by_user(losses: torch.Tensor, targets: torch.Tensor, owners: Sequence[int]) -> torch.Tensor:
    """Means (users,) of losses (rows, tokens), which are 0 but at each row's target tokens.

    targets: (rows,) number of target tokens; owners: user of each row.
    """
    owner = torch.tensor(owners)
    users = int(owner.max()) + 1
    counts = torch.zeros(users, dtype=torch.long).index_add(0, owner, targets)
    sums = losses.new_zeros(users).index_add(0, owner.to(losses.device), losses.sum(1))
    return sums / counts.to(losses.device)


def _positions(prepared: Prepared, prompt: torch.Tensor) -> torch.Tensor:
    """Shifted tokens among those run, (rows, tokens) bool; prompt: (rows, tokens) bool, true in prompts."""
    positions = prepared.kind.positions
    if prepared.prefix is None:
        return positions.mask(prompt)
    if positions.last == 0:
        return torch.zeros_like(prompt)
    return Positions(0, positions.last).mask(prompt)


def _change(stack: Stack, shifted: torch.Tensor, owners: Sequence[int], device: torch.device) -> Change:
    if not shifted.any():
        return lambda layer, hidden: hidden
    at = BatchPositions.of(shifted, owners, device)
    return lambda layer, hidden: at.change(stack, layer, hidden)


def _hidden(rows: Sequence[StepRow]) -> torch.Tensor | None:
    """Hidden states (rows, tokens, d) that enter above the entry layer; None when none were prepared."""
    states = [row.item.hidden for row in rows if row.item.hidden is not None]
    return pad_sequence(states, batch_first=True, padding_side="left") if states else None


def _left(rows: Sequence[Sequence[int]], padding: int = 0) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*[padding] * (width - len(row)), *row] for row in rows], dtype=torch.long)


def _prefix_parts(
    base: BaseModel, stack: Stack, prepared: Prepared, rows: Sequence[StepRow]
) -> tuple[PrefixParts, torch.Tensor]:
    """Keys and values of the tokens before those run, and (rows, columns) bool, false at their padding."""
    above = range(prepared.kind.entry + 1, len(decoder_layers(base.model)))
    parts: list[Mapping[int, KeysValues]] = []
    filled = torch.ones(len(rows), 0, dtype=torch.bool)
    prefix = prepared.prefix
    if prefix is not None and above:
        first = prepared.kind.positions.first
        owners = [row.user for row in rows]
        parts.append(_shifted_prefix(base, stack, prepared, prefix, owners) if first else prefix.layers)
        filled = torch.ones(len(rows), len(prefix), dtype=torch.bool)
    contexts, own = contexts_side_by_side([row.item.context for row in rows], above)
    if contexts:
        parts.append(contexts)
    return {n: [part[n] for part in parts] for n in above if parts}, torch.cat([filled, own], dim=1)


def _shifted_prefix(
    base: BaseModel, stack: Stack, prepared: Prepared, prefix: Prefix, owners: Sequence[int]
) -> dict[int, KeysValues]:
    """Keys and values of the prefix with each user's shifts at its first positions, repeated per row."""
    users = max(owners) + 1
    entering = prefix.hidden.expand(users, -1, -1)
    shifted = Positions(prepared.kind.positions.first, 0).mask(torch.ones(users, len(prefix)))
    cache = DynamicCache()
    change = _change(stack, shifted, range(users), base.device)
    above = range(prepared.kind.entry + 1, len(decoder_layers(base.model)))
    with running(base.model, above, entering), changing(base.model, stack.layers, change):
        ids = torch.tensor([prefix.tokens], device=base.device).expand(users, -1)
        base.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    index = torch.tensor(owners, device=base.device)
    layers = whole_layers(cache, above, len(prefix))
    return {n: (k.index_select(0, index), v.index_select(0, index)) for n, (k, v) in layers.items()}
