"""A finished run whose release has a prior over people, opened to fit people under it."""

from dataclasses import dataclass
from pathlib import Path

from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.edge.agent.history import History, read_history
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.engine.paths.check import load_checked
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation.client_app import CLIENTS
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.study_folder import check_finished


@dataclass(frozen=True)
class PriorRun:
    """What a run was, what it released, and who took part."""

    settings: RunSettings
    base: BaseModel
    release: OpenedRelease
    """The release, whose `people` have a prior."""
    clients: list[History]
    """Histories of all clients, sorted by their folders' names."""


def open_prior_run(run: Path) -> PriorRun:
    """Open a run's release and its clients' histories.

    Args:
        run: Folder of a finished run with `people-prior=true`.

    Raises:
        InputError: The folder holds no such run.
    """
    check_finished(run)
    if not (run / CLIENTS).is_dir():
        raise InputError(f"{run}: no finished run of `simulate` with its clients")
    settings = RunSettings.from_file(run / SETTINGS)
    base = load_checked(settings.base_model, device=settings.device, dtype=settings.dtype)
    release = OpenedRelease.of(read_release(run / FILE_NAME).to_bytes(), base)
    if release.people is None or release.people.prior is None:
        raise InputError(f"{run}: its release has no prior over people; run with people-prior=true")
    folders = sorted(folder for folder in (run / CLIENTS).iterdir() if folder.is_dir())
    return PriorRun(settings, base, release, [read_history(folder) for folder in folders])
