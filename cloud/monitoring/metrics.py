"""Health and metrics of a cloud, in Prometheus' text format: counts, and no name of anybody."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NotRequired

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import TypedDict

from fedperfit.cloud.deployment.home import CloudHome, read_cloud
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.signer import signer_ready
from fedperfit.cloud.deployment.up import superlink_ready
from fedperfit.cloud.monitoring.run_progress import RunProgress, newest_run
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import FedperfitError, InputError
from fedperfit.protocol.system.metrics import CONTENT_TYPE, Metric, gauge, text
from fedperfit.protocol.trust.pointer import parse_pointer
from fedperfit.protocol.trust.published import POINTER_FILE, RELEASES
from fedperfit.protocol.trust.validity import parse_time

logger = logging.getLogger("fedperfit.cloud")


class _Client(TypedDict):
    leaving: NotRequired[bool]


def routes(home: CloudHome) -> list[Route]:
    """Return what operators may ask for: `/healthz` and `/metrics`.

    Args:
        home: The cloud.
    """

    async def health(request: Request) -> Response:
        down = [name for name, there in (await run_in_threadpool(programs, home)).items() if not there]
        said = f"no answer: {', '.join(down)}\n" if down else "ok\n"
        return Response(said, 503 if down else 200, media_type="text/plain")

    async def metrics(request: Request) -> Response:
        return Response(await run_in_threadpool(cloud_metrics, home), media_type=CONTENT_TYPE)

    return [Route("/healthz", health), Route("/metrics", metrics)]


def programs(home: CloudHome) -> dict[str, bool]:
    """Return whether signer and SuperLink answer.

    Args:
        home: The cloud.
    """
    try:
        superlink = superlink_ready(home, read_cloud(home))
    except FedperfitError:
        superlink = False
    return {"signer": signer_ready(home), "superlink": superlink}


def cloud_metrics(home: CloudHome) -> str:
    """Write the state of a cloud and of its newest run; what cannot be read is left out, and logged.

    Args:
        home: The cloud.
    """
    here: Mapping[tuple[str, ...], float] = {(name,): up for name, up in programs(home).items()}
    metrics = [Metric("program_up", "gauge", "Whether a program of the cloud answers.", here, ("program",))]
    for read in (_enrolled, _releases, _newest_run):
        try:
            metrics += read(home)
        except InputError as error:
            logger.warning("left out of the metrics: %s", error)
    return text("fedperfit_cloud", metrics)


def _enrolled(home: CloudHome) -> list[Metric]:
    records = [read_form(path, _Client) for path in home.nodes.glob("*.json")]
    staying = [record for record in records if not record.get("leaving")]
    return [gauge("enrolled_clients", "Clients that are enrolled.", len(staying))]


def _newest_run(home: CloudHome) -> list[Metric]:
    run = newest_run(home)
    return _run(run) if run is not None else []


def _releases(home: CloudHome) -> list[Metric]:
    try:
        release = CloudReleases(home.folder).in_force()
        pointer = parse_pointer((home.folder / RELEASES / POINTER_FILE).read_bytes())
    except (FedperfitError, FileNotFoundError):
        return []
    metrics = [
        gauge("pointer_age_seconds", "Time since the release in force was confirmed.", _age(pointer.issued)),
        gauge("revoked_releases", "Releases that were revoked.", len(pointer.revoked)),
    ]
    if release is not None:
        metrics += [
            gauge("release_version", "Version of the release in force.", release.version),
            gauge("release_age_seconds", "Time since that release was issued.", _age(release.issued)),
            gauge("release_expires_seconds", "Time until it expires.", -_age(release.expires)),
        ]
    return metrics


def _run(run: RunProgress) -> list[Metric]:
    dropped: Mapping[tuple[str, ...], float] = {(kind,): count for kind, count in run.dropped.items()}
    sizes: Mapping[tuple[str, ...], float] = {("down",): run.down, ("up",): run.up}
    return [
        gauge("run_round", "Last finished round of the newest run.", run.round),
        gauge("run_rounds", "Rounds of the newest run.", run.rounds),
        gauge("run_clients", "Clients that can take part in it.", run.clients),
        gauge("run_asked", "Clients asked in the phase under way.", run.asked),
        gauge("run_answered", "Those of them that answered.", run.answered),
        gauge("run_done", "Whether the newest run came to its end.", run.done),
        gauge("run_updates_admitted", "Updates admitted in the newest run.", run.admitted),
        Metric("run_dropped", "gauge", "Replies dropped in the newest run, by kind.", dropped, ("kind",)),
        Metric("run_bytes", "gauge", "Bytes of its training's messages.", sizes, ("direction",)),
    ]


def _age(when: str) -> float:
    return (datetime.now(UTC) - parse_time(when)).total_seconds()
