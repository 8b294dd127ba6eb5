"""Flower ServerApp of a simulation: the main job, its figures and its report.

Settings come from the run folder when `fedperfit simulate` made it, otherwise from the run's configuration,
so that plain `flwr run` does the same job.
"""

import logging
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.protocol.settings.assignments import parse_assignments
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.system.run_folder import run_folder
from fedperfit.simulation.run.job import do_job
from fedperfit.simulation.run.settings import RunSettings

app = ServerApp()
logger = logging.getLogger("fedperfit.simulation")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run or resume the study of the run folder, then write metrics.json and report.html.

    Args:
        grid: Flower's connection to the nodes.
        context: Flower's context of the run, whose configuration names the run folder or the settings.
    """
    folder = run_folder(context.run_config, context.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / SETTINGS).exists():
        settings = RunSettings.from_file(folder / SETTINGS)
    else:
        overrides = parse_assignments(RunSettings, str(context.run_config["set"]).split())
        settings = RunSettings.read(str(context.run_config["preset"]), overrides)
        write_json(folder / SETTINGS, settings.to_flat())
    settings.check_flower()

    def show(event: dict[str, Any]) -> None:
        if event["event"] != "reply":
            logger.info(" ".join(f"{key}={value}" for key, value in event.items()))

    do_job(grid, settings, folder, show)
