"""A new run starts from the release in force, unless it is told otherwise or of another shape."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cloud.deployment.clouds import make_cloud
from tests.cloud.fake_grid import FakeGrid, honest, perturbed

from fedperfit.cloud.cli.deployment import _line
from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.run import START, prepare
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.job.job import Job
from fedperfit.cloud.rounds.checkpoint import Checkpoints
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.release import Release

CLIENTS = {1: "anna", 2: "ben"}


@pytest.fixture
def cloud(tmp_path: Path) -> tuple[CloudHome, CloudSettings, Release]:
    home, settings = make_cloud(tmp_path / "cloud", rounds=1)
    header = job(home.runs / "none", settings, []).trained_header
    shift = perturbed(Shift.identity(header.shape, seed=7), "released")
    return home, settings, CloudReleases(home.folder).publish(shift, header)


def job(folder: Path, settings: CloudSettings, said: list[str]) -> Job:
    grid = FakeGrid(CLIENTS, honest)

    def progress(event: str, values: dict[str, Any]) -> None:
        said.append(_line({"event": event, **values}))

    one = Job(grid, settings, folder, progress)
    one.names = dict(CLIENTS)
    return one


def began(home: CloudHome, settings: CloudSettings, name: str) -> tuple[Shift, list[str]]:
    """The shift that a run's first round broadcast, and what the run said."""
    said: list[str] = []
    folder = home.runs / name
    prepare(home, folder, settings, resume=False)
    run = job(folder, settings, said)
    run.train("train", list(CLIENTS.values()), run.start_from(folder / START))
    path = folder / "checkpoints" / "train"
    return Checkpoints(path)._read(Checkpoints(path).path(0)).shift, said


def same(one: Shift, other: Shift) -> bool:
    return all(
        torch.equal(getattr(one, name).detach(), getattr(other, name).detach()) for name in ("R", "W", "b")
    )


def test_a_new_run_starts_from_the_release_in_force(cloud: tuple[CloudHome, CloudSettings, Release]):
    home, settings, release = cloud
    start, said = began(home, settings, "one")
    assert same(start, release.shift)
    assert said[0] == "starting from release 1"


def test_unless_it_is_told_otherwise(cloud: tuple[CloudHome, CloudSettings, Release]):
    home, settings, release = cloud
    start, said = began(home, settings.replace(start_from="anew"), "anew")
    assert same(start, Shift.identity(release.header.shape, seed=settings.seed))
    assert not any("starting" in line for line in said)


def test_a_release_that_was_revoked_is_no_start(cloud: tuple[CloudHome, CloudSettings, Release]):
    home, settings, release = cloud
    CloudReleases(home.folder).revoke(release.version)
    start, _ = began(home, settings, "after")
    assert same(start, Shift.identity(release.header.shape, seed=settings.seed))


def test_a_release_of_another_shape_is_no_start(cloud: tuple[CloudHome, CloudSettings, Release]):
    home, settings, _ = cloud
    start, said = began(home, settings.replace(collective_rank=2), "wider")
    assert start.shape.rank == 2
    assert said[0] == "starting anew, not in the shape of release 1"


def test_a_resumed_run_keeps_its_start(cloud: tuple[CloudHome, CloudSettings, Release]):
    home, settings, release = cloud
    folder = home.runs / "one"
    prepare(home, folder, settings, resume=False)
    CloudReleases(home.folder).publish(perturbed(release.shift, "later"), release.header)
    before = (folder / START).read_bytes()
    prepare(home, folder, settings, resume=True)
    assert (folder / START).read_bytes() == before == release.to_bytes()
    with pytest.raises(InputError, match="exists already"):
        prepare(home, folder, settings, resume=False)
