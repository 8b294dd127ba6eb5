"""Two short rows of unequal length and shifts that certainly do something, to compare paths with."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.config import text_config
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift

_SHARED = 4
"""Least number of tokens that both rows begin with."""
_EXTRA = (2, 14)
"""Tokens of each prompt between those and the last shifted ones: unequal, for padding is what goes wrong."""
_TARGETS = (3, 2)
"""Tokens of the two targets."""
_LABELS = (1, 3)
"""Tokens of the labels."""


@dataclass(frozen=True)
class Probe:
    """Rows and shifts of two users."""

    examples: tuple[Example, Example]
    """One row of each user."""
    labels: Sequence[tuple[int, ...]]
    """Token ids of labels."""
    stack: Stack
    """Shifts of the two users."""
    items: ItemCache
    """Cache of the prepared rows."""


def probe_of(base: BaseModel, layers: Sequence[int], positions: Positions) -> Probe:
    """Make the rows and shifts.

    Args:
        base: the frozen model.
        layers: decoder layers that are shifted; none for no shifts.
        positions: shifted tokens of each prompt.
    """
    room = base.context - max(*_TARGETS, *_LABELS) - len(base.mark)
    tokens = _tokens(base.model)
    shared = tuple(islice(tokens, min(max(_SHARED, positions.first), max(1, room - 2))))
    rows = []
    for extra, target in zip(_EXTRA, _TARGETS, strict=True):
        own = max(1, min(positions.last + extra, room - len(shared)))
        prompt = (*shared, *islice(tokens, own), *base.mark)
        rows.append(Example(prompt, tuple(islice(tokens, target))))
    labels = [tuple(islice(tokens, length)) for length in _LABELS]
    own_shifts = _shifts(base, layers, positions) if layers else None
    return Probe((rows[0], rows[1]), labels, Stack([], own_shifts, False), ItemCache(base))


def _tokens(model: Any) -> Any:
    """Ordinary token ids without end, spread over the vocabulary."""
    config = text_config(model.config)
    special = {id for of in (config, model.config) for id in vars(of).values() if isinstance(id, int)}
    size = model.get_input_embeddings().num_embeddings
    return (id for id in (3 + 7 * step % max(1, size - 3) for step in count()) if id not in special)


def _shifts(base: BaseModel, layers: Sequence[int], positions: Positions) -> Slab:
    """One shift that mirrors a quarter of the dimensions, and one that removes them."""
    size = int(text_config(base.model.config).hidden_size)
    one = Shift.identity(ShiftShape((0,), max(1, size // 4), size, positions), seed=0)
    shape = ShiftShape(tuple(layers), one.shape.rank, size, positions)
    R = one.R.detach().expand(len(layers), -1, -1)
    b = one.b.detach().expand(len(layers), -1)
    shifts = [Shift(shape, R=R.clone(), W=scale * R, b=b.clone()) for scale in (-1.0, 0.0)]
    dtype = torch.promote_types(base.model.dtype, torch.float32)
    return Slab.of([shift.to(dtype) for shift in shifts], base.device)
