"""A small model and workload for the benchmark's tests."""

from typing import Any

from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.simulation.benchmark.model import ModelSpec, make_base
from fedperfit.simulation.benchmark.workload import PRESETS, Lengths, Workload
from fedperfit.simulation.run.settings import RunSettings

TINY = ModelSpec(layers=4, hidden_size=32, heads=4, vocabulary=64, device="cpu")
LENGTHS = Lengths(shared=12, field=8, target=3)


def tiny_base() -> BaseModel:
    return make_base(TINY)


def tiny_workload(users: int = 2, items: int = 6, **overrides: Any) -> Workload:
    values = {name.replace("_", "-"): value for name, value in overrides.items()}
    settings = RunSettings.read(
        PRESETS["LaMP_2M"], {"batch-size": 4, "layers": [1, 2], "layers-of": 4} | values
    )
    return Workload(lengths=LENGTHS, users=users, items=items, settings=settings)
