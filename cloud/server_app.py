"""The Flower ServerApp of a deployed cloud: rounds, a signed release, personal shifts, their scores."""

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from cloud.enrolment import enrolled
from cloud.home import CloudHome, CloudSettings
from cloud.job import Job, recorder
from cloud.job_settings import SETTINGS
from cloud.release_store import CloudReleases
from protocol.files import read_json, write_json
from protocol.run_folder import run_folder
from protocol.settings import STAGES

app = ServerApp()
logger = logging.getLogger("fedperfit.cloud")
CLOUD_KEY = "cloud-dir"
"""In the run's configuration: the cloud's folder."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run or resume the job of the run folder."""
    home = CloudHome(Path(str(context.run_config[CLOUD_KEY])))
    folder = run_folder(context.run_config, context.run_id)
    settings = CloudSettings.from_flat(read_json(folder / SETTINGS))

    def show(event: dict[str, Any]) -> None:
        if event["event"] != "reply":
            logger.info(" ".join(f"{key}={value}" for key, value in event.items()))

    progress = recorder(folder, show)
    progress("start", {"run": str(folder)})
    job = Job(grid, settings, folder, progress)
    clients = job.connect(settings.clients, settings.connect_seconds, enrolled(home))
    federation, shift = job.train("train", clients)
    write_json(folder / "rounds.json", [report.to_json() for report in federation.history])
    lifetime = timedelta(days=settings.lifetime_days)
    release = CloudReleases(home.folder).publish(shift, job.trained_header, lifetime=lifetime)
    progress("release", {"version": release.version, "digest": release.digest})
    payload = release.to_bytes()
    job.personalize("personalize", clients, payload)
    for stage in STAGES:
        job.evaluate(f"evaluate-{stage}", clients, payload, stage)
    progress("done", {"version": release.version})
