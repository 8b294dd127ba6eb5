"""Injection of shifts into a frozen model of any architecture.

A forward hook on each shifted decoder layer replaces the residual stream at the masked positions.
The mask is made once per batch from the prompt, so padding on either side is handled there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from fedperfit.protocol.model.layers import changing, decoder_layers
from fedperfit.protocol.shift.shift import Shift, compose


@contextmanager
def injected(
    model: nn.Module,
    shifts: Sequence[Shift],
    mask: torch.Tensor,
    *,
    additive: bool = False,
    prefill_only: bool = False,
) -> Iterator[None]:
    """Run a model with shifts at the masked positions of their layers inside the block.

    The shifts of a layer act in the order given, all on the same mask.

    Args:
        model: A transformers model.
        shifts: Shifts to apply, e.g. the collective and then the personal one.
        mask: (batch, tokens) bool over the positions of the model's input (see `Positions.mask`).
        additive: Add the shifts' deltas instead of applying one shift after the other.
        prefill_only: Shift the first pass through each layer only, for `generate`; cached decoding steps
            then cost nothing. Otherwise every pass is shifted, for training.

    Raises:
        InputError: If a shift acts on a layer that the model does not have.
    """
    depth = len(decoder_layers(model))
    for shift in shifts:
        shift.shape.check_depth(depth)
    done: set[int] = set()

    def change(layer: int, hidden: torch.Tensor) -> torch.Tensor:
        if layer in done:
            return hidden
        if prefill_only:
            done.add(layer)
        beams = len(hidden) // len(mask)
        chosen = mask.repeat_interleave(beams, dim=0) if beams > 1 else mask
        shifted = compose(shifts, layer, hidden[chosen], additive=additive)
        return hidden.index_put((chosen,), shifted)

    with changing(model, {layer for shift in shifts for layer in shift.shape.layers}, change):
        yield
