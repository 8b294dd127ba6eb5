"""Starting a run on this cloud's SuperLink and following it to its end."""

from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

from filelock import FileLock, Timeout

from fedperfit.cloud.deployment.home import CLOUD_KEY, CONNECTION, CloudHome, read_cloud
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.deployment.up import wait_for_superlink
from fedperfit.cloud.job.basis import run_basis
from fedperfit.cloud.job.events import EVENTS, OnEvent
from fedperfit.cloud.job.people import public_people
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.cloud.rounds.checkpoint import Checkpoints
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.system.errors import InputError, RunFailed, TooFewClients
from fedperfit.protocol.system.files import read_json, write_atomic, write_json
from fedperfit.protocol.system.flower import stop_runs, stream_run
from fedperfit.protocol.system.flower_app import DEPLOYED, write_app

START = "start.safetensors"
"""File in a run's folder: the release in force when it began, which it starts from."""

CARD = "card.json"
"""File in a run's folder: the base model's card, whose files a run's code may not see."""

MEMBERS = "members.json"
"""File in a run's folder: the release in force, and the clients that it names for secure sums."""

CORRECTABLE = (
    "clients",
    "connect-seconds",
    "host",
    "port",
    "superlink-port",
    "metrics-port",
    "max-body-mib",
    "mirror",
)
"""Settings that decide no result: a run may be resumed after they were changed."""
ROUNDS = ("deadline-seconds", "clients-per-round", "over-selection", "aggregation", "assumed-malicious")
"""Settings of the rounds that may be changed too where all rounds begin again, or for the first time."""
_LOCK = ".run.lock"
"""File in the cloud's folder, locked while a run is under way: each builds on the release before it."""


def run(home: CloudHome, name: str, *, resume: bool, on_event: OnEvent) -> Path:
    """Run or resume a job; interrupted, it is stopped.

    One whose command was killed, with which the SuperLink has gone on, is stopped first.

    Args:
        home: The cloud.
        name: Name of the run's folder.
        resume: Whether to continue a run that was begun.
        on_event: Called with each event of the run.

    Returns:
        The run's folder.

    Raises:
        InputError: If the cloud is not up, another run of it is under way, the name is taken or a path, there
            is nothing to resume, or settings that decide its result have changed since.
        TooFewClients: If the run ended for want of clients.
        RunFailed: If it does not complete for another reason.
    """
    if name == ".." or Path(name).name != name:
        raise InputError(f"name={name!r}: expected the name of one folder in {home.runs}, not a path")
    try:
        with FileLock(home.folder / _LOCK, timeout=0.5):
            return _run(home, name, resume, on_event)
    except Timeout:
        raise InputError(f"{home.folder}: another run of this cloud is under way") from None


def _run(home: CloudHome, name: str, resume: bool, on_event: OnEvent) -> Path:
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
    failures: list[dict[str, Any]] = []

    def heard(event: dict[str, Any]) -> None:
        if event["event"] == "failed":
            failures.append(event)
        on_event(event)

    stop_runs(CONNECTION, home.environment())
    try:
        stream_run(
            *(app, CONNECTION, home.environment()),
            events=folder / EVENTS,
            log=folder / "flower.log",
            on_event=heard,
        )
    except RunFailed as error:
        raise (_explained(home, name, failures[-1]) if failures else error) from None
    except BaseException:  # Ctrl-C, or a full disk: the SuperLink would go on with it
        stop_runs(CONNECTION, home.environment())
        raise
    return folder


def _explained(home: CloudHome, name: str, failure: dict[str, Any]) -> RunFailed:
    """Return the error that says why a run ended, and how it goes on."""
    resume = f"fedperfit-cloud run {quote(str(home.folder))} --name {quote(name)} --resume"
    if not failure["too-few-clients"]:
        return RunFailed(f"the run ended: {failure['reason']}; {resume} goes on where it stopped")
    return TooFewClients(
        f"the run ended for want of clients: {failure['reason']}. What was done is kept. See that the "
        f"clients are on, or correct cloud.toml ({', '.join(CORRECTABLE)}), then: {resume}"
    )


def prepare(home: CloudHome, folder: Path, settings: CloudSettings, *, resume: bool) -> None:
    """Make a run's folder, with its settings, the release that it starts from, and what else it reads.

    Its code runs where not every file of this machine can be read, so the base model's card and the basis of
    the updates are in its folder.

    Args:
        home: The cloud.
        folder: Folder of the run.
        settings: The cloud's settings.
        resume: Whether to continue a run that was begun; then settings that decide no result may have been
            corrected since.

    Raises:
        InputError: If there is nothing to resume, other settings or the base model have changed since, the
            name is taken, the base model or the basis cannot be read, or a release is broken.
    """
    path = folder / SETTINGS
    if resume:
        if not path.exists():
            raise InputError(f"{folder}: no run to resume")
        _check_changes(folder, CloudSettings.from_file(path), settings)
        _write_model(folder, settings)
        _write_members(home, folder, settings)
        write_json(path, settings.to_flat())
        return
    if path.exists():
        raise InputError(f"{folder}: a run of that name exists already; resume it, or choose another name")
    _write_model(folder, settings)
    _write_members(home, folder, settings)
    release = CloudReleases(home.folder).in_force() if settings.start_from == "release" else None
    if release is not None:
        write_atomic(folder / START, release.to_bytes())
    write_json(path, settings.to_flat())


def _write_model(folder: Path, settings: CloudSettings) -> None:
    """Keep the base model's card, and what is decided before the run: the basis, how public people differ."""
    card, path = read_card(settings.base_model), folder / CARD
    kept = read_json(path) if path.exists() else None
    if isinstance(kept, dict) and kept.get("fingerprint") != card.fingerprint:
        raise InputError(f"{folder}: the base model {settings.base_model} has changed since this run began")
    write_json(path, asdict(card))
    basis = run_basis(settings, card, folder)
    if basis is not None and settings.prior_source == "public":
        public_people(basis, settings, folder)


def _write_members(home: CloudHome, folder: Path, settings: CloudSettings) -> None:
    """Keep whom the release in force names for secure sums, where the run has any."""
    if not settings.secure:
        return
    release = CloudReleases(home.folder).in_force()
    directory = release.directory if release is not None else None
    if release is None or directory is None:
        command = f"fedperfit-cloud release members {quote(str(home.folder))}"
        raise InputError(
            f"secure-aggregation=committee: no release in force names the clients; {command} does"
        )
    if len(directory.keys) < settings.committee_size:
        raise InputError(
            f"committee-size={settings.committee_size}: release {release.version} names "
            f"{len(directory.keys)} clients only"
        )
    write_json(folder / MEMBERS, {"release": release.digest, "enrolled": directory.to_json()})


def _check_changes(folder: Path, before: CloudSettings, settings: CloudSettings) -> None:
    """Refuse settings that would give a resumed run another result than the one it began with."""
    was, now = before.to_flat(), settings.to_flat()
    changed = sorted(key for key in now if was.get(key) != now[key])
    trained = Checkpoints(folder / "checkpoints" / "train").latest()
    anew = trained is None or trained.without_updates(before.rounds)
    allowed = CORRECTABLE + ROUNDS if anew else CORRECTABLE
    fixed = [key for key in changed if key not in allowed]
    if fixed:
        raise InputError(
            f"{folder}: cloud.toml has changed since this run began, in {', '.join(fixed)}: only "
            f"{', '.join(allowed)} may; undo it, or begin another run"
        )
