"""The Flower ServerApp of a simulation: the main job, its figures and its report.

Settings come from the run folder when `fedperfit simulate` made it, else from the run's configuration,
so that plain `flwr run` does the same job.
"""

import json
import logging
import time
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from protocol.files import read_json, write_json
from protocol.run_folder import run_folder
from simulation.metrics import write_metrics
from simulation.report import write_report
from simulation.settings import SETTINGS, RunSettings, parse_overrides
from simulation.study import EVENTS, Study

app = ServerApp()
logger = logging.getLogger("fedperfit.simulation")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run or resume the study of the run folder, then write metrics.json and report.html."""
    folder = run_folder(context.run_config, context.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / SETTINGS).exists():
        settings = RunSettings.from_flat(read_json(folder / SETTINGS))
    else:
        overrides = parse_overrides(str(context.run_config["set"]).split())
        settings = RunSettings.read(str(context.run_config["preset"]), overrides)
        write_json(folder / SETTINGS, settings.to_flat())

    def progress(event: str, values: dict[str, Any]) -> None:
        line = json.dumps({"event": event, "time": time.time(), **values})
        with (folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if event != "reply":
            logger.info("%s %s", event, " ".join(f"{key}={value}" for key, value in values.items()))

    progress("start", {"run": str(folder)})
    Study(grid, settings, folder, progress).run()
    write_metrics(folder)
    report = write_report(folder)
    progress("done", {"report": str(report)})
