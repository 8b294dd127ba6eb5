"""A comparison of a few users of the world, small enough for tests, in this process."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from fedperfit.protocol.model.base_model import embedded_folder
from fedperfit.protocol.system.files import read_json_lines
from fedperfit.simulation.cluster.pool import Here
from fedperfit.simulation.compare.cells import WorkerState, WorkUnit
from fedperfit.simulation.compare.method import registry
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.compare.study import begin, needs, plan
from fedperfit.simulation.compare.workers import Piece, do_pieces, maker, pieces

ALL = list(registry())


@cache
def tiny_base() -> str:
    """The folder of a random model that is a hundredth of the embedded one, with its tokenizer."""
    folder = Path(tempfile.mkdtemp(prefix="fedperfit-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


SMALL: dict[str, Any] = {
    "tasks": ["LaMP_2M"],
    "methods": ALL,
    "method_files": [],
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
    return CompareSettings(**({"base_model": tiny_base()} | SMALL | changes))


def started(folder: Path, **changes: Any) -> WorkerState:
    """A new comparison's folder and what one process needs for it."""
    settings = small_settings(**changes)
    begin(folder, settings)
    return WorkerState(folder, settings)


def run_all(state: WorkerState, on_line: Any = lambda unit, seconds: None) -> None:
    """Everything that is left, in this process."""
    units = [unit for unit in plan(state) if state.left(unit)]
    here = Here[Piece](maker(state), state.folder)
    do_pieces(state, pieces(state, units), lambda unit: needs(state, unit), here, on_line)


def answers(folder: Path, state: WorkerState) -> dict[tuple[WorkUnit, str, int], list[str]]:
    """Read the answers of every cell from a run folder."""
    found = {}
    for unit in plan(state):
        if unit.kind != "search":
            for line in read_json_lines(folder / unit.file):
                found[unit, line["user"], line["size"]] = line["answers"]
    return found


def with_batch(settings: CompareSettings, size: int) -> CompareSettings:
    """Return the settings with another number of questions answered at once."""
    return settings.replace(answer_batch=size)
