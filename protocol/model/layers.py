"""The decoder layers of any Hugging Face model, and running only some of them.

The layers are called by the model's own forward pass, unchanged: a skipped layer returns its input
unchanged, so masks, positions, final norm and head remain the model's business.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from fedperfit.protocol.model.config import text_config
from fedperfit.protocol.system.errors import InputError

_decoder_layers: WeakKeyDictionary[nn.Module, nn.ModuleList] = WeakKeyDictionary()


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the decoder layers, found by structure: the module list as long as the model is deep.

    Raises:
        InputError: If there is no such list, or more than one.
    """
    if model not in _decoder_layers:
        depth = getattr(text_config(getattr(model, "config", None)), "num_hidden_layers", None)
        lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
        if len(lists) != 1:
            raise InputError(
                f"{type(model).__name__}: expected one list of {depth} decoder layers, found {len(lists)}"
            )
        _decoder_layers[model] = lists[0]
    return _decoder_layers[model]


@contextmanager
def running(model: nn.Module, layers: range, entering: torch.Tensor | None = None) -> Iterator[None]:
    """Run only some decoder layers of a model inside the block.

    Args:
        model: A transformers model.
        layers: Layers that run, counted from 0.
        entering: (batch, tokens, d) to replace the output of the layer before them; hooks on that layer
            act on it. By default the first of `layers` gets what enters the skipped layers.

    Raises:
        InputError: If the model has no recognizable decoder layers.
    """
    left_out = [(number, layer) for number, layer in enumerate(decoder_layers(model)) if number not in layers]
    for number, layer in left_out:
        layer.forward = _hand_on(entering if number == layers.start - 1 else None)
    try:
        yield
    finally:
        for _, layer in left_out:
            del layer.forward


def _hand_on(entering: torch.Tensor | None) -> Callable[..., torch.Tensor]:
    def forward(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return hidden_states if entering is None else entering

    return forward


Change = Callable[[int, torch.Tensor], torch.Tensor]
"""Function from a layer's number and its output (batch, tokens, d) to what the next layer gets instead."""


@contextmanager
def changing(model: nn.Module, layers: Iterable[int], change: Change) -> Iterator[None]:
    """Pass the outputs of some decoder layers through a function inside the block.

    Args:
        model: A transformers model.
        layers: Layers whose outputs are changed, counted from 0.
        change: Called with a layer's number and its output (batch, tokens, d), whose replacement it returns.
    """
    modules = decoder_layers(model)
    handles = [modules[layer].register_forward_hook(_hook(layer, change)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(layer: int, change: Change) -> Callable[[nn.Module, Any, Any], Any]:
    def on_output(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(layer, output[0]), *output[1:])
        return change(layer, output)

    return on_output
