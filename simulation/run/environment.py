"""Environment of a simulation: Flower's and Ray's switches, and the allocator's."""

import os
from pathlib import Path

import torch

from fedperfit.edge.engine.items import PROCESSES_VARIABLE
from fedperfit.protocol.system.allocator import ALLOCATOR
from fedperfit.protocol.system.flower import EQUAL, QUIET

RUN_MARK = "FEDPERFIT_RUN"
"""Variable set to the run's folder in every process of a run, so that all of them can be found and
stopped.
"""


def variables(flower_home: Path, mark: str, client_gpus: float) -> dict[str, str]:
    """Return the environment variables for SuperLink, ServerApp and clients.

    Args:
        flower_home: Flower home that the processes use.
        mark: Value of `RUN_MARK`.
        client_gpus: Share of a GPU per client, where there is one.
    """
    processes = round(1 / client_gpus) if torch.cuda.is_available() and client_gpus else os.cpu_count()
    return {
        **QUIET,
        **EQUAL,
        "FLWR_HOME": str(flower_home),
        "TOKENIZERS_PARALLELISM": "false",
        **ALLOCATOR,
        PROCESSES_VARIABLE: str(processes or 1),
        RUN_MARK: mark,
    }


def write_flower_home(folder: Path, *, address: str, clients: int, client_gpus: float) -> None:
    """Write `config.toml` of a Flower home whose default connection runs a simulation.

    Args:
        folder: The Flower home.
        address: Address of a running SuperLink, or `:local:` to let `flwr run` start one.
        clients: Number of simulated nodes.
        client_gpus: Share of a GPU per client, where there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "[superlink]",
        'default = "simulation"',
        "",
        "[superlink.simulation]",
        f'address = "{address}"',
        *(["insecure = true"] if address != ":local:" else []),
        f"options.num-supernodes = {clients}",
        "options.backend.client-resources.num-cpus = 1",
        f"options.backend.client-resources.num-gpus = {client_gpus if torch.cuda.is_available() else 0.0}",
    ]
    (folder / "config.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
