"""The signer releases what cloud.toml agreed on, for the cloud's own account."""

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cloud.deployment.clouds import make_cloud

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.deployment.signer import (
    ask_for_release,
    check_agreed,
    check_promised,
    signer_command,
    signer_ready,
)
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.people.people import People
from fedperfit.protocol.people.prior import Prior
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.system.processes import Children, wait_until


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CloudHome, CloudSettings]]:
    """A cloud with its signer, in a folder whose name is too long for that of a socket."""
    folder = tmp_path_factory.mktemp("c") / ("long " * 30) / "cloud"
    folder.parent.mkdir()
    home, settings = make_cloud(folder)
    with Children() as children:
        children.start("signer", signer_command(home), log=home.logs / "signer.log")
        assert wait_until(lambda: signer_ready(home), 120), (home.logs / "signer.log").read_text()
        yield home, settings


def agreed(settings: CloudSettings, seed: int) -> tuple[Shift, ShiftHeader]:
    card = read_card(settings.base_model)
    shape = settings.shape(card)
    header = ShiftHeader(shape, settings.task, card.fingerprint, settings.rounds, settings.transport_dtype)
    return Shift.identity(shape, seed=seed), header


def test_what_was_agreed_is_the_next_release(cloud: tuple[CloudHome, CloudSettings]) -> None:
    home, settings = cloud
    before = len(CloudReleases(home.folder).all())
    first = ask_for_release(home, *agreed(settings, 1))
    assert ask_for_release(home, *agreed(settings, 1)) == first
    second = ask_for_release(home, *agreed(settings, 2))
    assert CloudReleases(home.folder).verify()[before:] == [first, second]
    life = datetime.fromisoformat(second.expires) - datetime.fromisoformat(second.issued)
    assert life.days == settings.lifetime_days


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"task": "LaMP_3"}, "task"),
        ({"fingerprint": "0" * 64}, "base model"),
        ({"round": 0}, "rounds"),
        ({"dtype": "bfloat16"}, "encoding"),
        ({"rank": 1}, "shape"),
        ({"directions": True}, "directions"),
        ({"people": True}, "a personal basis is there"),
    ],
)
def test_another_form_is_refused(
    cloud: tuple[CloudHome, CloudSettings], what: dict[str, Any], reason: str
) -> None:
    home, settings = cloud
    shift, header = agreed(settings, 3)
    directions = people = None
    if "rank" in what:
        shape = replace(header.shape, **what)
        shift, header = Shift.identity(shape, seed=3), replace(header, shape=shape)
    elif "directions" in what:
        directions = Directions.of((0,), torch.ones(1, 2), torch.ones(1, 2))
    elif "people" in what:
        basis = random_basis(header.shape, 2, task=header.task, fingerprint=header.fingerprint, seed=0)
        people = People(basis)
    else:
        header = replace(header, **what)
    before = _files(home.folder / "releases")
    with pytest.raises(RunFailed, match=f"refused the release: {reason}"):
        ask_for_release(home, shift, header, directions, people)
    assert _files(home.folder / "releases") == before


def test_a_prior_over_people_by_another_rule_is_refused() -> None:
    wanted = {"update-basis": "public", "personal-basis": "update", "people-prior": True, "prior-items": 7}
    settings = CloudSettings.from_some(
        read_preset("quickstart") | {"host": "localhost", "clients": 3} | wanted
    )
    header = agreed(settings, 1)[1]
    basis = random_basis(header.shape, 16, task=header.task, fingerprint=header.fingerprint, seed=0)
    directions = torch.eye(2, basis.numbers)
    prior = Prior(directions, torch.tensor([0.2, 0.1]), 0.05, settings.prior_strength, 7)
    check_agreed(settings, header, None, People(basis, prior))
    for other in ({"strength": 1.0}, {"items": 8}, {"numbers": 1}, {"gives_way": "loss"}):
        with pytest.raises(InputError, match=f"the prior's {next(iter(other))} is .*; cloud.toml says"):
            check_agreed(settings, header, None, People(basis, replace(prior, **other)))


def _files(folder: Path) -> set[str]:
    """Names of what a release leaves; the pointer's file is written anew every now and then."""
    return {file.name for file in folder.iterdir() if file.suffix not in (".part", ".json")}


@pytest.mark.parametrize(
    ("target", "promise", "reason"),
    [
        (0.0, (None, None), ""),
        (0.0, (1.0, 1e-5), "no target-epsilon"),
        (2.0, (1.5, 1e-5), ""),
        (2.0, (2.5, 1e-5), "promises 2"),
        (2.0, (None, None), "promises 2"),
        (2.0, (1.5, 1e-3), "delta"),
    ],
)
def test_no_release_says_more_than_was_promised(
    target: float, promise: tuple[float | None, float | None], reason: str
) -> None:
    values = {"target-epsilon": target, "update-basis": "random", "host": "localhost", "clients": 3}
    settings = CloudSettings.from_some(read_preset("quickstart") | values)
    if not reason:
        assert check_promised(settings, json.dumps(promise).encode()) == promise
    else:
        with pytest.raises(InputError, match=reason):
            check_promised(settings, json.dumps(promise).encode())
    with pytest.raises(InputError, match="malformed"):
        check_promised(settings, b"[1")


def test_a_caller_that_talks_nonsense_or_leaves_does_not_end_it(
    cloud: tuple[CloudHome, CloudSettings],
) -> None:
    home, settings = cloud
    for _ in range(3):
        assert signer_ready(home), "which connects and leaves"
    with pytest.raises(RunFailed):
        ask_for_release(CloudHome(home.folder / "nowhere"), *agreed(settings, 1))
    assert ask_for_release(home, *agreed(settings, 4))


def test_a_caller_that_says_nothing_does_not_hold_up_the_others(
    cloud: tuple[CloudHome, CloudSettings],
) -> None:
    home, settings = cloud
    with socket.socket(socket.AF_UNIX) as silent:
        folder = os.open(home.signer, os.O_RDONLY)
        silent.connect(f"/proc/self/fd/{folder}/signer.sock")
        os.close(folder)
        silent.send(b"\0")
        assert ask_for_release(home, *agreed(settings, 3)).version
