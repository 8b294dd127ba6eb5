"""The Flower ServerApp of a deployed cloud: rounds, a signed release, personal shifts, their scores."""

import logging
import time
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from typing_extensions import TypedDict

from fedperfit.cloud.clients.roster import NobodyFits
from fedperfit.cloud.deployment.home import CLOUD_KEY, CloudHome
from fedperfit.cloud.deployment.run import CARD, MEMBERS, START
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.deployment.signer import ask_for_release
from fedperfit.cloud.enrolment.registration import enrolled
from fedperfit.cloud.job.events import recording
from fedperfit.cloud.job.job import Job
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import TooFewClients, count_of
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.system.run_folder import run_folder

app = ServerApp()
logger = logging.getLogger("fedperfit.cloud")
_PAUSE_SECONDS = 2.0


class _Members(TypedDict):
    """The release in force, and whom it names for secure sums."""

    enrolled: dict[str, Any]
    release: str


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run or resume the job of a run folder.

    Args:
        grid: Flower's grid.
        context: Flower's context; its run configuration names the cloud's and the run's folder.

    What ends it before its end is the last of its events, `failed`.

    Raises:
        TooFewClients: If too few clients can take part.
        RunFailed: If the signer does not release the shift.
    """
    home = CloudHome(Path(str(context.run_config[CLOUD_KEY])))
    folder = run_folder(context.run_config, context.run_id)
    settings = CloudSettings.from_file(folder / SETTINGS)

    def show(event: dict[str, Any]) -> None:
        if event["event"] != "reply":
            logger.info(" ".join(f"{key}={value}" for key, value in event.items()))

    with recording(folder, show) as progress:
        progress("start", {"run": str(folder)})
        card = read_form(folder / CARD, BaseModelCard)
        _run(Job(grid, settings, folder, progress, privacy=home.runs, card=card), settings, home)


def _run(job: Job, settings: CloudSettings, home: CloudHome) -> None:
    folder, progress = job.folder, job.progress
    clients = _connected(job, settings, home)
    job.choose(clients)
    contributors = contributing(job, settings, clients)
    federation, shift = job.train("train", contributors, job.start_from(folder / START))
    write_json(folder / "rounds.json", [report.to_json() for report in federation.history])
    directions = job.directions("directions", clients)
    release = ask_for_release(
        home,
        shift,
        job.trained_header,
        directions,
        job.people("train"),
        epsilon=job.epsilon,
        delta=job.delta,
    )
    progress("release", {"version": release.version, "digest": release.digest})
    payload = release.to_bytes()
    job.personalize("personalize", clients, payload)
    for stage in job.stages if not settings.private else ():  # sums of scores would tell of clients unnoised
        job.evaluate(f"evaluate-{stage}", clients, payload, stage)
    progress("done", {"version": release.version})


def contributing(job: Job, settings: CloudSettings, clients: list[str]) -> list[str]:
    """Return the clients that take part in rounds: with secure sums, those that the release in force names.

    Args:
        job: The job, which is told who is enrolled for sums.
        settings: Its settings.
        clients: Names of the connected clients.
    """
    if not settings.secure:
        return clients
    members = read_form(job.folder / MEMBERS, _Members)
    job.directory, job.release = Directory.from_json(members["enrolled"]), members["release"]
    for client in sorted(set(clients) - set(job.directory.keys)):
        logger.warning(
            "%s is in no round: the release in force does not name it for sums (`release members` does)",
            client,
        )
    return [client for client in clients if client in job.directory.keys]


def _connected(job: Job, settings: CloudSettings, home: CloudHome) -> list[str]:
    """Return the clients that can take part, once there are enough.

    A node may be connected before its agent is, so all are asked again until then.

    Raises:
        TooFewClients: If there are not enough in time.
    """
    end = time.monotonic() + settings.connect_seconds
    while True:
        left = end - time.monotonic()
        try:
            clients = job.connect(settings.clients, max(left, 1.0), enrolled(home))
        except NobodyFits:
            clients = []
        if len(clients) >= settings.clients:
            return clients
        if left <= 0:
            raise TooFewClients(
                f"{len(clients)} of {count_of(settings.clients, 'client')} can take part (see the log)"
            )
        time.sleep(min(_PAUSE_SECONDS, left))
