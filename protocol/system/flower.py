"""Running Flower's programs: where they are, the environment they need, and how a run ended."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.files import mend_lines
from fedperfit.protocol.system.processes import SAFE_PATH, Children

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}
"""No telemetry, and no downloads in the middle of a run."""
EQUAL = {"RAY_worker_niceness": "0"}
"""Ray's workers run as other programs do, not after them: beside other work they would hardly run at all."""
KEPT_SECONDS = 65.0
"""Time for which an edge keeps a connection to the cloud that it does not use; nginx keeps one for 75 s."""

SUPEREXEC = "flower-superexec"
"""What SuperLink and SuperNode start apps with; they do not start it again when it dies."""

CLIENT_APP = "flwr-clientapp"
"""What SuperExec starts, by name, for each message to a ClientApp."""
OTHER_APPS = ("flwr-agentapp", "flwr-connector", "flwr-model", "flwr-serverapp", "flwr-simulation")
"""What SuperExec would start for the other kinds of task that a SuperLink can ask for."""

FLEET = (
    *("register-node", "activate-node", "deactivate-node", "unregister-node", "send-node-heartbeat"),
    *("pull-messages", "push-messages", "get-run", "get-fab", "push-object", "pull-object"),
    "confirm-message-received",
)
"""What a SuperNode asks of a SuperLink: the last part of each path below /v1/fleet."""


def executable(name: str) -> str:
    """A console script of this environment, whether or not it is on the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise RunFailed(f"{name} is not installed in this environment")
    return found


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment, for Flower's programs with their state in `home`."""
    beside = str(Path(sys.executable).parent)  # they start one another by name
    path = os.pathsep.join([beside, os.environ.get("PATH", "")])
    state = {"FLWR_HOME": str(home.absolute()), "PATH": path}
    return {**os.environ, **QUIET, **state, **more, **SAFE_PATH}


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a port of an address of this machine can be listened on, so that nobody does."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError:
            return False
    return True


def stream_run(
    app: Path,
    connection: str,
    environment: Mapping[str, str],
    *,
    events: Path,
    log: Path,
    on_event: Callable[[dict[str, Any]], None],
) -> None:
    """`flwr run` of an app folder, its ServerApp's events handed on as they come.

    Flower's command exits 0 even when the run failed: its status is asked for. Raises RunFailed unless the
    run completed. Interrupted, it ends the command; the SuperLink goes on with the run (see `stop_runs`).
    """
    mend_lines(events)
    seen = events.stat().st_size if events.exists() else 0
    command = [executable("flwr"), "run", str(app), connection, "--stream"]
    with Children() as children:
        flower = children.start("flwr", command, log=log, environment=environment, folder=app)
        done = False
        while not done:
            done = flower.ended()
            for event in _new_events(events, seen):
                seen = event.pop("_end")
                on_event(event)
            time.sleep(0.2)
    status = latest_run(connection, environment)["status"]
    if status != "finished:completed":
        raise RunFailed(f"the run ended as {status!r}; see {log}")


def latest_run(connection: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """What `flwr list` says of the newest run; its status is `unknown` where it says nothing."""
    runs = listed_runs(connection, environment)
    return runs[0] if runs else {"status": "unknown"}


def stop_runs(connection: str, environment: Mapping[str, str]) -> None:
    """Stop every run of a SuperLink that has not ended; it goes on with one that nobody follows any more."""
    for run in listed_runs(connection, environment):
        if not run["status"].startswith("finished"):
            command = [executable("flwr"), "stop", run["run-id"], connection]
            subprocess.run(command, env=environment, capture_output=True, check=False)


def listed_runs(connection: str, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """What `flwr list` says of each run, the newest first."""
    command = [executable("flwr"), "list", connection, "--format", "json"]
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        runs: list[dict[str, Any]] = json.loads(listed.stdout)["runs"]
    except (ValueError, KeyError):
        return []
    return runs


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
