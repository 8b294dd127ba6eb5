"""A study of a few users of the world on a tiny random model, in this process."""

from pathlib import Path
from typing import Any

from tests.simulation.compare.small_comparison import tiny_base

from fedperfit.edge.agent.history import History
from fedperfit.simulation.communication.ground import Ground
from fedperfit.simulation.communication.rates import Rates
from fedperfit.simulation.communication.row import Row, rows_by_name
from fedperfit.simulation.communication.settings import CommunicationSettings

TASK = "LaMP_2M"
RATES = Rates(shared=1e-2, personal=1e-2)
SMALL: dict[str, Any] = {
    "device": "cpu",
    "rows": ["base", "perfit", "lora"],
    "draws": 2,
    "others": 4,
    "users": 2,
    "world_history": 6,
    "world_questions": 3,
    "validation_users": 1,
    "validation_questions": 2,
    "rounds": 2,
    "clients_per_round": 2,
    "collective_items": 4,
    "bootstrap_samples": 20,
}


def small_settings(**changes: Any) -> CommunicationSettings:
    """The smallest study that has every kind of row."""
    return CommunicationSettings(**({"base_model": tiny_base()} | SMALL | changes))


def row_of(ground: Ground, name: str) -> Row:
    """A row of a small study, not trained yet."""
    return rows_by_name()[name](ground.context(TASK, 0), ground.settings, RATES)


def clients_of(ground: Ground) -> list[History]:
    """The clients that train with any seed."""
    return ground.training(TASK)[0]


def empty(folder: Path) -> Path:
    """Make an empty folder."""
    folder.mkdir(parents=True)
    return folder
