"""Starting a run on this cloud's SuperLink and following it to its end."""

import json
from pathlib import Path

from fedperfit.cloud.deployment.home import CLOUD_KEY, CONNECTION, CloudHome, CloudSettings, read_cloud
from fedperfit.cloud.deployment.up import wait_for_superlink
from fedperfit.cloud.job.job import EVENTS, OnEvent
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_atomic, write_json
from fedperfit.protocol.system.flower import stream_run

_APPS = {
    "server.py": '"""The installed ServerApp."""\n\nfrom fedperfit.cloud.server_app import app\n\n'
    '__all__ = ["app"]\n',
    "client.py": '"""The installed ClientApp."""\n\nfrom fedperfit.edge.client_app import app\n\n'
    '__all__ = ["app"]\n',
}
"""Flower wants apps inside the folder it runs; a module each, for neither machine has the other's part."""
_PROJECT = """[project]
name = "fedperfit-deployed"
version = "0.1.0"
dependencies = []

[tool.flwr.app]
publisher = "fedperfit"

[tool.flwr.app.components]
serverapp = "server:app"
clientapp = "client:app"

[tool.flwr.app.config]
run-dir = {run}
{cloud_key} = {cloud}
"""


def run(home: CloudHome, name: str, *, resume: bool, on_event: OnEvent) -> Path:
    """Run or resume a job.

    Args:
        home: The cloud.
        name: Name of the run's folder.
        resume: Whether to continue a run that was begun.
        on_event: Called with each event of the run.

    Returns:
        The run's folder.

    Raises:
        InputError: If the cloud is not up, the name is taken, there is nothing to resume, or the settings
            have changed since.
        RunFailed: If the run does not complete.
    """
    settings = read_cloud(home)
    folder = (home.runs / name).absolute()
    wait_for_superlink(home, settings)
    _prepare(folder, settings, resume)
    app = folder / "app"
    for file, content in _APPS.items():
        write_atomic(app / file, content.encode())
    values = {"run": folder, "cloud": home.folder.absolute()}
    project = _PROJECT.format(
        cloud_key=CLOUD_KEY, **{key: json.dumps(str(value)) for key, value in values.items()}
    )
    write_atomic(app / "pyproject.toml", project.encode())
    stream_run(
        *(app, CONNECTION, home.environment()),
        events=folder / EVENTS,
        log=folder / "flower.log",
        on_event=on_event,
    )
    return folder


def _prepare(folder: Path, settings: CloudSettings, resume: bool) -> None:
    path = folder / SETTINGS
    if resume:
        if not path.exists():
            raise InputError(f"{folder}: no run to resume")
        if read_json(path) != settings.to_flat():
            raise InputError(f"{folder}: cloud.toml has changed since this run began")
        return
    if path.exists():
        raise InputError(f"{folder}: a run of that name exists already; resume it, or choose another name")
    write_json(path, settings.to_flat())
