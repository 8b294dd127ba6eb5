"""The ways of training a benchmark compares, by name."""

from collections.abc import Callable, Iterable, Sequence

from fedperfit.edge.engine.examples import Example
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.simulation.benchmark import lora, ours, pyreft_peer
from fedperfit.simulation.benchmark.workload import Workload

Contender = Callable[[BaseModel, Iterable[Sequence[Example]], Workload], int]
"""Fits every user from scratch and leaves the base model as it was.

Returns the bytes of what is kept of one user.
"""

CONTENDERS: dict[str, Contender] = {
    "engine": ours.engine,
    "plain": ours.plain,
    "pyreft": pyreft_peer.pyreft,
    "lora": lora.lora,
    "lora-checkpointing": lora.lora_checkpointing,
}
