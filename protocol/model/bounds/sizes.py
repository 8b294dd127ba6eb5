"""Sizes that a base model's files may name: what is built by them stays near what the files hold.

Transformers builds what a configuration describes before it looks for the weights, so one of absurd sizes
would fill the memory, or take for ever, before anybody saw that the weights are not there.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch.nn.modules import module

from fedperfit.protocol.system.errors import InputError

MOST_TENSORS = 100_000
"""Tensors that a model may consist of; the largest known ones have a third of that."""
_MOST_LAYERS = 10_000
_MOST_TIMES = 16
"""Times that a model may be as large as its files: packed weights are larger, and some count twice."""


def check_depth(values: Any) -> None:
    """Check the numbers of layers that a configuration names, lists of which are made when it is read.

    Args:
        values: The configuration's JSON value.

    Raises:
        InputError: One is absurd.
    """
    if isinstance(values, list):
        for value in values:
            check_depth(value)
    if isinstance(values, Mapping):
        for name, value in values.items():
            if "layer" in str(name) and isinstance(value, int) and value > _MOST_LAYERS:
                raise InputError(f"{name}={str(value)[:20]}: at most {_MOST_LAYERS} layers")
            check_depth(value)


@contextmanager
def bounded_by(numbers: int) -> Iterator[None]:
    """Have torch refuse to build, in this thread, a model that is far larger than its files.

    Args:
        numbers: How many numbers the files hold, about.

    Raises:
        InputError: From within the block, where it is.
    """
    most, thread = _MOST_TIMES * numbers, threading.get_ident()
    tensors = built = 0

    def count(owner: torch.nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        nonlocal tensors, built
        if tensor is None or threading.get_ident() != thread:
            return
        tensors, built = tensors + 1, built + tensor.numel()
        if tensors > MOST_TENSORS:
            raise InputError(f"its configuration describes more than {MOST_TENSORS} tensors")
        if built > most:
            raise InputError(f"its configuration describes more than {_MOST_TIMES} times what its files hold")

    hooks = [
        module.register_module_parameter_registration_hook(count),
        module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_memory(parameters: int, dtype: torch.dtype) -> None:
    """Check that there is memory for a model's weights, before they are read.

    Args:
        parameters: How many there are.
        dtype: What they are loaded as.

    Raises:
        InputError: There is not; the system would end some program for it.
    """
    needed, free = parameters * dtype.itemsize, psutil.virtual_memory().available
    if needed > free:
        raise InputError(f"its weights take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free")
