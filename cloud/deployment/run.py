"""Starting a run on this cloud's SuperLink and following it to its end."""

from pathlib import Path

from fedperfit.cloud.deployment.home import CLOUD_KEY, CONNECTION, CloudHome, read_cloud
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.deployment.up import wait_for_superlink
from fedperfit.cloud.job.job import EVENTS, OnEvent
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_atomic, write_json
from fedperfit.protocol.system.flower import stream_run
from fedperfit.protocol.system.flower_app import DEPLOYED, write_app

START = "start.safetensors"
"""File in a run's folder: the release in force when it began, which it starts from."""


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
    prepare(home, folder, settings, resume=resume)
    app = folder / "app"
    write_app(
        app,
        "fedperfit-deployed",
        **DEPLOYED,
        config={"run-dir": str(folder), CLOUD_KEY: str(home.folder.absolute())},
    )
    stream_run(
        *(app, CONNECTION, home.environment()),
        events=folder / EVENTS,
        log=folder / "flower.log",
        on_event=on_event,
    )
    return folder


def prepare(home: CloudHome, folder: Path, settings: CloudSettings, *, resume: bool) -> None:
    """Make a run's folder, with its settings and the release that it starts from.

    Args:
        home: The cloud.
        folder: Folder of the run.
        settings: The cloud's settings.
        resume: Whether to continue a run that was begun; then nothing is changed.

    Raises:
        InputError: If there is nothing to resume, the settings have changed since, the name is taken, or a
            release is broken.
    """
    path = folder / SETTINGS
    if resume:
        if not path.exists():
            raise InputError(f"{folder}: no run to resume")
        if CloudSettings.from_flat(read_json(path)) != settings:
            raise InputError(f"{folder}: cloud.toml has changed since this run began")
        return
    if path.exists():
        raise InputError(f"{folder}: a run of that name exists already; resume it, or choose another name")
    release = CloudReleases(home.folder).in_force() if settings.start_from == "release" else None
    if release is not None:
        write_atomic(folder / START, release.to_bytes())
    write_json(path, settings.to_flat())
