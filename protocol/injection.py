"""Putting shifts into a frozen decoder-only model, whatever its architecture.

A forward hook on each shifted decoder layer replaces the residual stream at the masked positions.
The mask is made once per batch from the prompt, so padding on either side is handled there.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from protocol.errors import InputError
from protocol.shift import Shift, compose


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers, found by structure: the module list as long as the model is deep.

    Raises InputError when there is none, or more than one.
    """
    config = getattr(model, "config", None)
    config = getattr(config, "text_config", config)
    depth = getattr(config, "num_hidden_layers", None)
    found = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(found) != 1:
        raise InputError(
            f"{type(model).__name__}: expected one list of {depth} decoder layers, found {len(found)}"
        )
    return found[0]


@contextmanager
def injected(
    model: nn.Module,
    shifts: Sequence[Shift],
    mask: torch.Tensor,
    *,
    additive: bool = False,
    prefill_only: bool = False,
) -> Iterator[None]:
    """Inside the block, `model` runs with `shifts` at the masked positions of their layers.

    mask: (batch, tokens) bool over the positions of the model's input (see `Positions.mask`).
    prefill_only: shift the first pass through each layer, for `generate`; cached decoding steps
        then cost nothing. Otherwise every pass is shifted, for training.
    The shifts of a layer act in the order given, all on the same mask.
    """
    layers = decoder_layers(model)
    for shift in shifts:
        shift.shape.check_depth(len(layers))
    with ExitStack() as stack:
        for layer in sorted({layer for shift in shifts for layer in shift.shape.layers}):
            hook = _Hook(shifts, layer, mask, additive, prefill_only)
            handle = layers[layer].register_forward_hook(hook)
            stack.callback(handle.remove)
        yield


class _Hook:
    def __init__(
        self,
        shifts: Sequence[Shift],
        layer: int,
        mask: torch.Tensor,
        additive: bool,
        prefill_only: bool,
    ) -> None:
        self.shifts, self.layer, self.mask = shifts, layer, mask
        self.additive, self.prefill_only = additive, prefill_only
        self.done = False

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self.done:
            return output
        self.done = self.prefill_only
        hidden = output[0] if isinstance(output, tuple) else output
        mask = self.mask
        if len(hidden) != len(mask):
            mask = mask.repeat_interleave(len(hidden) // len(mask), dim=0)  # beams of one prompt
        shifted = compose(self.shifts, self.layer, hidden[mask], additive=self.additive)
        hidden = hidden.index_put((mask,), shifted)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
