"""Where a run keeps its files; every process of a simulation must find the same folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RUNS_VARIABLE = "FEDPERFIT_RUNS"
"""Environment variable: the folder of runs started by plain `flwr run`, which names no `run-dir`."""


def run_folder(run_config: Mapping[str, Any], run_id: int) -> Path:
    """`run-dir` of the run's configuration; else `flwr-<run id>` under $FEDPERFIT_RUNS or ./runs."""
    named = str(run_config.get("run-dir", ""))
    if named:
        return Path(named)
    return Path(os.environ.get(RUNS_VARIABLE, "runs")).absolute() / f"flwr-{run_id}"
