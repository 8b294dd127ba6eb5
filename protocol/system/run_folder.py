"""The folder in which a run keeps its files; every process of a simulation must find the same one."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RUNS_VARIABLE = "FEDPERFIT_RUNS"
"""Environment variable: folder of the runs started by plain `flwr run`, which names no `run-dir`."""


def run_folder(run_config: Mapping[str, Any], run_id: int) -> Path:
    """Return the folder of a run: its `run-dir`, or `flwr-<run id>` under $FEDPERFIT_RUNS or ./runs.

    Args:
        run_config: Flower's configuration of the run.
        run_id: Flower's id of the run.
    """
    named = str(run_config.get("run-dir", ""))
    if named:
        return Path(named)
    return Path(os.environ.get(RUNS_VARIABLE, "runs")).absolute() / f"flwr-{run_id}"
