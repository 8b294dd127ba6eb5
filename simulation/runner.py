"""Runs a Flower simulation as a child of this process, and leaves none of its processes behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from filelock import FileLock, Timeout

from cloud.job import EVENTS, OnEvent
from protocol.errors import InputError
from simulation.environment import RUN_MARK, variables, write_flower_home
from simulation.job import LOCK

_START_SECONDS = 60.0
_APP = '''"""Names the installed apps for Flower, which wants them inside the folder it runs."""

from edge.client_app import app as client
from simulation.server_app import app as server

__all__ = ["client", "server"]
'''
_PROJECT = """[project]
name = "fedperfit-run"
version = "0.1.0"
dependencies = []

[tool.flwr.app]
publisher = "fedperfit"

[tool.flwr.app.components]
serverapp = "apps:server"
clientapp = "apps:client"

[tool.flwr.app.config]
run-dir = {folder}
"""


class RunFailed(Exception):
    """The simulation ended without finishing the job; the message is one line."""


def run_simulation(folder: Path, *, clients: int, client_gpus: float, on_event: OnEvent) -> None:
    """Run or resume the study of `folder` on `clients` simulated nodes.

    on_event gets every event of the ServerApp as it happens. Flower's own log is `folder/flower.log`.
    Raises RunFailed when the run did not complete (Flower's command exits 0 even then), InputError
    when another process is running this folder.
    """
    try:
        with FileLock(folder / LOCK, timeout=0.2):
            stop_run(folder)
            with _superlink(folder, clients, client_gpus) as environment:
                _stream(folder, environment, on_event)
    except Timeout:
        raise InputError(f"{folder}: another process is running this run") from None


def stop_run(folder: Path) -> None:
    """Stop every process that carries this run's mark: a killed run leaves SuperLink and Ray behind."""
    mark = str(folder.resolve())
    processes = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(RUN_MARK) == mark:
                processes.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
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
    """A SuperLink in simulation mode on free ports; yields the environment of its run."""
    home = folder / "flower"
    port, control = _free_ports(2)
    write_flower_home(home, address=f"127.0.0.1:{port}", clients=clients, client_gpus=client_gpus)
    environment = os.environ | variables(home, str(folder.resolve()), client_gpus)
    beside = str(Path(sys.executable).parent)  # the SuperLink starts Flower's other programs by name
    environment["PATH"] = os.pathsep.join([beside, environment.get("PATH", "")])
    command = [
        *(_executable("flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"),
        *("--host", "127.0.0.1", "--port", str(port), "--control-api-address", f"127.0.0.1:{control}"),
    ]
    with (folder / "flower.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        end = time.monotonic() + _START_SECONDS
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RunFailed(f"Flower's SuperLink did not start; see {folder / 'flower.log'}")
            time.sleep(0.1)
        yield environment
    finally:
        stop_run(folder)
        process.wait()


def _stream(folder: Path, environment: dict[str, str], on_event: OnEvent) -> None:
    app = folder / "app"
    app.mkdir(exist_ok=True)
    (app / "apps.py").write_text(_APP, encoding="utf-8")
    (app / "pyproject.toml").write_text(
        _PROJECT.format(folder=json.dumps(str(folder.resolve()))), encoding="utf-8"
    )
    events = folder / EVENTS
    seen = events.stat().st_size if events.exists() else 0
    with (folder / "flower.log").open("ab") as log:
        flower = subprocess.Popen(
            [_executable("flwr"), "run", str(app), "--stream"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    done = False
    while not done:
        done = flower.poll() is not None
        for event in _new_events(events, seen):
            seen = event.pop("_end")
            on_event(event)
        time.sleep(0.2)
    status = _status(environment)
    if status != "finished:completed":
        raise RunFailed(f"the run ended as {status!r}; see {folder / 'flower.log'}")


def _new_events(path: Path, start: int) -> Iterator[dict[str, Any]]:
    """Whole lines written after byte `start`, each with the byte after it as `_end`."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            start += len(line)
            if line.endswith(b"\n"):
                yield json.loads(line) | {"_end": start}


def _status(environment: dict[str, str]) -> str:
    listed = subprocess.run(
        [_executable("flwr"), "list", "--format", "json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        runs = json.loads(listed.stdout)["runs"]
        return str(runs[0]["status"])
    except (ValueError, KeyError, IndexError):
        return "unknown"


def _executable(name: str) -> str:
    """A console script of this environment, whether or not it is on the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise RunFailed(f"{name} is not installed in this environment")
    return found


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=0.5).is_success
    except httpx.HTTPError:
        return False


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
