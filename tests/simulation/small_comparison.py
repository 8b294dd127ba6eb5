"""A comparison of a few users of the world, small enough for tests, in this process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from protocol.files import read_json_lines
from simulation.compare.crew import do_lots
from simulation.compare.method import registry
from simulation.compare.settings import CompareSettings
from simulation.compare.study import begin, needs, plan
from simulation.compare.work import Lot, Workshop

ALL = list(registry())
SMALL: dict[str, Any] = {
    "tasks": ["LaMP_2M"],
    "methods": ALL,
    "method_files": [],
    "base_model": "embedded",
    "data": "world",
    "device": "cpu",
    "dtype": "float32",
    "seeds": [0],
    "draws": 1,
    "others": 4,
    "users": 3,
    "world_history": 4,
    "world_questions": 3,
    "validation_users": 1,
    "validation_questions": 2,
    "validation_items": 2,
    "search_pairs": 4,
    "collective_items": 2,
    "history_lengths": [],
    "collective_sizes": [],
    "curve_users": 1,
}


def small_settings(**changes: Any) -> CompareSettings:
    """The smallest comparison that has everything."""
    return CompareSettings(**(SMALL | changes))


def begun(folder: Path, **changes: Any) -> Workshop:
    """A new comparison's folder and what one process needs for it."""
    settings = small_settings(**changes)
    begin(folder, settings)
    return Workshop(folder, settings)


def run_all(shop: Workshop, on_line: Any = lambda lot, seconds: None) -> None:
    """Everything that is left, in this process."""
    lots = [lot for lot in plan(shop) if shop.left(lot)]
    do_lots(shop.folder, shop.settings, lots, lambda lot: needs(shop, lot), 1, on_line)


def answers(folder: Path, shop: Workshop) -> dict[tuple[Lot, str, int], list[str]]:
    """Every cell's answers."""
    found = {}
    for lot in plan(shop):
        if lot.kind != "search":
            for line in read_json_lines(folder / lot.file):
                found[lot, line["user"], line["size"]] = line["answers"]
    return found


def with_batch(settings: CompareSettings, size: int) -> CompareSettings:
    """The same, asking another number of questions at a time."""
    return replace(settings, answer_batch=size)
