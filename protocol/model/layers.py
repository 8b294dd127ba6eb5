"""The decoder layers of any Hugging Face model, and running only some of them.

The layers are called by the model's own forward pass, unchanged: a skipped layer returns its input
unchanged, in the form in which it would return its output, so masks, positions, final norm and head remain
the model's business.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from fedperfit.protocol.model.config import text_config
from fedperfit.protocol.model.joint_rows import JointLayer
from fedperfit.protocol.system.errors import InputError

_OTHER_SENSES = ("vision", "visual", "image", "audio", "speech")
"""Parts of the names of modules that see or hear."""
_decoder_layers: WeakKeyDictionary[nn.Module, nn.ModuleList] = WeakKeyDictionary()
_tuples: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the decoder layers, found by structure: the module list as long as the model is deep.

    A list inside a layer, e.g. of experts, is none of them; of a model that also sees or hears, only the
    language model is searched.

    Raises:
        InputError: If there is no such list, or more than one.
    """
    if model not in _decoder_layers:
        joint = getattr(model, "joint_layers", None)  # of an encoder-decoder model, over whole rows
        depth = getattr(text_config(getattr(model, "config", None)), "num_hidden_layers", None)
        _decoder_layers[model] = layers_within(model, depth) if joint is None else nn.ModuleList(joint)
    return _decoder_layers[model]


def layers_within(module: nn.Module, depth: int | None) -> nn.ModuleList:
    """Return the only list of layers of this length within a module.

    Args:
        module: A model, or the part of one that decodes.
        depth: Number of its decoder layers.

    Raises:
        InputError: There is no such list, or more than one.
    """
    lists = _lists(module, depth)
    if len(lists) != 1:
        raise InputError(
            f"{type(module).__name__}: expected one list of {depth} decoder layers, found {len(lists)}"
        )
    return lists[0]


def _lists(module: nn.Module, length: int | None) -> list[nn.ModuleList]:
    """Return the outermost module lists of this length, of parts for images and sound only if no others."""
    lists: dict[str, nn.ModuleList] = {}
    for name, part in module.named_modules():
        inner = any(name.startswith(f"{other}.") for other in lists)
        if isinstance(part, nn.ModuleList) and len(part) == length and not inner:
            lists[name] = part
    text = [part for name, part in lists.items() if not any(sense in name for sense in _OTHER_SENSES)]
    return text or list(lists.values())


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
    modules = decoder_layers(model)
    left_out = [(number, layer) for number, layer in enumerate(modules) if number not in layers]
    if left_out:
        length = _tuple_length(model, modules)
    for number, layer in left_out:
        layer.forward = _hand_on(entering if number == layers.start - 1 else None, length)
    try:
        yield
    finally:
        for _, layer in left_out:
            del layer.forward


def _hand_on(entering: torch.Tensor | None, length: int) -> Callable[..., Any]:
    """Return a forward pass that computes nothing; `length`: of the tuple it returns, 0 for no tuple."""

    def forward(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        handed = hidden_states if entering is None else entering
        return (handed, *[None] * (length - 1)) if length else handed

    return forward


def _tuple_length(model: nn.Module, layers: nn.ModuleList) -> int:
    """Return the length of the tuples that the layers return, 0 where they return hidden states alone.

    Seen once per model, with one token.
    """
    if isinstance(layers[0], JointLayer):
        return 0
    if model not in _tuples:
        seen: list[Any] = []
        handle = layers[0].register_forward_hook(lambda module, args, output: seen.append(output))
        try:
            with torch.no_grad():
                model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=next(model.parameters()).device))
        finally:
            handle.remove()
        _tuples[model] = len(seen[0]) if isinstance(seen[0], tuple | list) else 0
    return _tuples[model]


def feed_head_in_one_piece(model: nn.Module) -> None:
    """Have the head be given hidden states that lie in one piece in memory.

    The last column of a batch is a view with gaps, for which torch multiplies row by row with a copy of the
    head's weights for each (`F.linear` becomes `bmm`): on a CPU and with a vocabulary of 49,152 it takes
    twice as long in fp32 and a hundred times as long in bf16. Exact up to rounding.

    Args:
        model: A transformers model; one without a head stays as it is.
    """
    find: Callable[[], Any] = getattr(model, "get_output_embeddings", lambda: None)
    head = find()
    if isinstance(head, nn.Module):
        head.register_forward_pre_hook(_in_one_piece)


def _in_one_piece(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    # a copy, as the last column of a single row passes for contiguous and is multiplied in the same way
    return tuple(
        arg.clone(memory_format=torch.contiguous_format) if isinstance(arg, torch.Tensor) else arg
        for arg in args
    )


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
        if isinstance(output, tuple | list):
            return (change(layer, output[0]), *output[1:])
        return change(layer, output)

    return on_output
