"""Base models of a simulation's clients: loaded once, and rounded as their storage rounds them."""

import copy
import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NotRequired

import torch
from typing_extensions import TypedDict

from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.paths.check import load_checked
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.functional import functional_fingerprint
from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.storages import Storage

AGENT = "agent.json"
"""File in the folder of all clients that says which model the agents load, and how."""
_GROUP = 64
"""Weights that share a scale and a zero in 8 and 4 bit."""

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BITS = {"8-bit": 8, "4-bit": 4}

About = TypedDict(
    "About",
    {
        "base-model": str,
        "device": str,
        "dtype": str,
        "cache-gib": NotRequired[float],
        "encoder": NotRequired[str],
        "storages": NotRequired[list[Storage]],
    },
)
"""Which model the agents load, and how."""


def read_about(clients: Path) -> About:
    """Read which model the agents load, and how.

    Args:
        clients: Folder of the clients of a run.

    Raises:
        InputError: The file is missing or broken.
    """
    return read_form(clients / AGENT, About)


def storage_of(clients: Path, partition: int) -> Storage:
    """Return how a client stores the base model.

    Args:
        clients: Folder of the clients of a run.
        partition: Number of the client; the storages are dealt out in turn.
    """
    storages = read_about(clients).get("storages") or ["fp32"]
    return storages[partition % len(storages)]


def items_of(clients: Path, partition: int = 0) -> ItemCache:
    """Return the model of a client as it stores it, with the items prepared for it.

    Models are loaded once per process; Flower's simulation keeps its processes between messages.

    Args:
        clients: Folder of the clients of a run.
        partition: Number of the client.

    Raises:
        InputError: The model cannot be loaded or asked, or a rounded copy would be refused as another model.
    """
    about = read_about(clients)
    copies = _copies(about["base-model"], about["device"], about["dtype"], about.get("cache-gib", -1.0))
    if isinstance(copies, str):
        raise InputError(copies)
    return copies.items(storage_of(clients, partition))


class _Copies:
    """One base model in several storages."""

    def __init__(self, base: BaseModel, budget: int | None) -> None:
        self._base, self._budget = base, budget
        self._items: dict[Storage, ItemCache] = {}

    def items(self, storage: Storage) -> ItemCache:
        if storage not in self._items:
            base = stored(self._base, storage)
            if storage != "fp32":  # what an edge checks when it joins
                functional_fingerprint(self._base).check(base, f"the copy in {storage}")
            self._items[storage] = ItemCache(base, self._budget)
        return self._items[storage]


@lru_cache(maxsize=1)
def _copies(name: str, device: str, dtype: str, gib: float) -> _Copies | str:
    """Load the model; what is wrong with it is found out once, not for each client, and returned."""
    try:
        return _Copies(load_checked(name, device=device, dtype=dtype), None if gib < 0 else int(gib * 2**30))
    except InputError as error:
        return str(error)


def stored(base: BaseModel, storage: Storage) -> BaseModel:
    """Return a model whose weights are rounded as a storage rounds them, computing as before.

    Args:
        base: The model; it stays as it is.
        storage: `fp32` leaves the weights; 16 bit rounds all, 8 and 4 bit the decoder layers' matrices.
    """
    if storage == "fp32":
        return base
    model = copy.deepcopy(base.model)
    if storage in _TYPES:
        for weight in model.parameters():
            weight.data = weight.data.to(_TYPES[storage]).to(weight.dtype)
        return replace(base, model=model)
    for layer in decoder_layers(model):
        for weight in layer.parameters():
            if weight.dim() > 1:
                weight.data = _rounded(weight.data, _BITS[storage])
    return replace(base, model=model)


def _rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Round with a scale and a zero for each group of weights that lie side by side."""
    groups = weight.float().reshape(-1, math.gcd(_GROUP, weight.numel()))
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    scale = ((high - low) / (2**bits - 1)).clamp_min(torch.finfo(torch.float32).tiny)
    rounded: torch.Tensor = ((groups - low) / scale).round() * scale + low
    return rounded.reshape(weight.shape).to(weight.dtype)
