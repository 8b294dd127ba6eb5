"""Contenders of the benchmark, by name."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedperfit.edge.engine.examples import Example
    from fedperfit.protocol.model.base_model import BaseModel
    from fedperfit.simulation.benchmark.workload import Workload

Contender = Callable[["BaseModel", Iterable[Sequence["Example"]], "Workload"], int]
"""Function that fits every user from scratch, leaves the base model as it was, and returns a user's bytes."""

CONTENDERS = ("engine", "plain", "pyreft", "lora", "lora-checkpointing")
"""Names of the contenders."""


def contender(name: str) -> Contender:
    """Return a contender.

    Args:
        name: Name of a contender.
    """
    from fedperfit.simulation.benchmark import lora, ours, pyreft_peer

    found: dict[str, Contender] = {
        "engine": ours.engine,
        "plain": ours.plain,
        "pyreft": pyreft_peer.pyreft,
        "lora": lora.lora,
        "lora-checkpointing": lora.lora_checkpointing,
    }
    return found[name]
