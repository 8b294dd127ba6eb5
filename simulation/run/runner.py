"""Flower simulation as a child of this process, none of whose processes stays behind."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from fedperfit.cloud.job.events import EVENTS, OnEvent
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.protocol.system.errors import RunFailed, TooFewClients
from fedperfit.protocol.system.flower import environment, executable, free_ports, stream_run
from fedperfit.protocol.system.flower_app import write_app
from fedperfit.protocol.system.processes import marked
from fedperfit.simulation.run.environment import RUN_MARK, variables, write_flower_home
from fedperfit.simulation.run.job import at_work
from fedperfit.simulation.run.settings import RunSettings

_START_SECONDS = 60.0


def run_simulation(folder: Path, *, clients: int, client_gpus: float, on_event: OnEvent) -> None:
    """Run or resume the study of `folder` on simulated nodes of Flower.

    Flower's own log is `folder/flower.log`.

    Args:
        folder: Folder of the run, with its settings.
        clients: Number of nodes.
        client_gpus: Share of a GPU per client, where there is one.
        on_event: Called with every event of the ServerApp as it happens.

    Raises:
        TooFewClients: The run ended for want of clients.
        RunFailed: The run did not complete for another reason; Flower's command exits with 0 even then.
        InputError: Another process is running this folder, or the settings ask for what cohorts do only.
    """
    RunSettings.from_file(folder / SETTINGS).check_flower()
    with at_work(folder):
        stop_run(folder)
        with _superlink(folder, clients, client_gpus) as needed:
            _stream(folder, needed, on_event)


def stop_run(folder: Path) -> None:
    """Stop every process that has this run's mark; a killed run leaves SuperLink and Ray behind."""
    processes = marked(RUN_MARK, str(folder.resolve()))
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


@contextmanager
def _superlink(folder: Path, clients: int, client_gpus: float) -> Iterator[dict[str, str]]:
    """Run a SuperLink in simulation mode on free ports; yield the environment for its run."""
    home = folder / "flower"
    port, control = free_ports(2)
    write_flower_home(home, address=f"127.0.0.1:{port}", clients=clients, client_gpus=client_gpus)
    needed = environment(home, **variables(home, str(folder.resolve()), client_gpus))
    command = [
        *(executable("flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"),
        *("--host", "127.0.0.1", "--port", str(port), "--control-api-address", f"127.0.0.1:{control}"),
    ]
    with (folder / "flower.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=needed, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        end = time.monotonic() + _START_SECONDS
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RunFailed(f"Flower's SuperLink did not start; see {folder / 'flower.log'}")
            time.sleep(0.1)
        yield needed
    finally:
        stop_run(folder)
        process.wait()


def _stream(folder: Path, needed: dict[str, str], on_event: OnEvent) -> None:
    app = folder / "app"
    write_app(
        app,
        "fedperfit-run",
        server="fedperfit.simulation.server_app",
        client="fedperfit.simulation.client_app",
        config={"run-dir": str(folder.resolve())},
    )
    failures: list[dict[str, Any]] = []

    def heard(event: dict[str, Any]) -> None:
        if event["event"] == "failed":
            failures.append(event)
        on_event(event)

    log = folder / "flower.log"
    try:
        stream_run(*(app, "simulation", needed), events=folder / EVENTS, log=log, on_event=heard)
    except RunFailed as error:
        if not failures:
            raise
        kind = TooFewClients if failures[-1]["too-few-clients"] else RunFailed
        raise kind(f"{failures[-1]['reason']}; see {log}") from error


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=0.5).is_success
    except httpx.HTTPError:
        return False
