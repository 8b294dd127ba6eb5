"""A deployed run with secure sums: among whom the release in force names, and under that release."""

import logging
from pathlib import Path

import pytest
from tests.cloud.deployment.clouds import make_cloud
from tests.cloud.fake_grid import FakeGrid, honest

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.run import MEMBERS, START, prepare
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.doctor.examination import groups
from fedperfit.cloud.job.job import Job
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.cloud.server_app import contributing
from fedperfit.protocol.doctor.findings import Verdict, examine
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.secure_sums.keys import Directory, SumKeys
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.trust.release import Release

SUMS = {
    "update-basis": "random",
    "transport-dtype": "sign",
    "secure-aggregation": "committee",
    "committee-size": 3,
    "committee-corrupt": 1,
    "committee-threshold": 3,
    "fewest-contributors": 3,
}


def directory(*names: str) -> Directory:
    return Directory({name: SumKeys.new().public for name in names})


@pytest.fixture
def cloud(tmp_path: Path) -> tuple[CloudHome, CloudSettings]:
    home, settings = make_cloud(tmp_path / "cloud", **SUMS)
    return home, settings


def named(home: CloudHome, settings: CloudSettings, members: Directory) -> Release:
    from fedperfit.cloud.job.basis import settings_basis
    from fedperfit.protocol.model.base_model import read_card
    from fedperfit.protocol.shift.basis import Coordinates
    from fedperfit.protocol.shift.packing import ShiftHeader

    card = read_card(settings.base_model)
    basis = settings_basis(settings, card)
    assert basis is not None
    about = {"task": settings.task_id, "fingerprint": card.fingerprint, "round": 0}
    header = ShiftHeader(shape=settings.shape(card), dtype=settings.release_dtype, **about)
    store = CloudReleases(home.folder)
    return store.name_members(members, lambda: (Coordinates.zero(basis).shift(), header))


def test_a_run_begins_only_where_a_release_names_enough_clients(cloud):
    home, settings = cloud
    folder = home.runs / "one"
    with pytest.raises(InputError, match="no release in force names the clients; fedperfit-cloud release"):
        prepare(home, folder, settings, resume=False)
    named(home, settings, directory("anna", "ben"))
    with pytest.raises(InputError, match="committee-size=3: release 1 names 2 clients only"):
        prepare(home, folder, settings, resume=False)
    assert not (folder / SETTINGS).exists()


def test_rounds_are_of_the_named_clients_under_the_release_in_force(cloud, caplog):
    home, settings = cloud
    members, folder = directory("anna", "ben", "cyd"), home.runs / "one"
    release = named(home, settings, members)
    prepare(home, folder, settings, resume=False)
    job = Job(FakeGrid({}, honest), settings, folder, lambda *_: None)
    with caplog.at_level(logging.WARNING):
        assert contributing(job, settings, ["anna", "ben", "cyd", "dan"]) == ["anna", "ben", "cyd"]
    assert "dan is in no round" in caplog.text
    assert (job.directory.keys, job.release) == (members.keys, release.digest)
    job.names = {}
    sums = job._federation("train", Ledger(folder / "ledger.jsonl")).sums
    assert sums is not None
    assert (sums.release, sums.directory.keys) == (release.digest, members.keys)
    assert job.start_from(folder / START) is not None, "the identity lies in the run's basis"


def enrol(home: CloudHome, members: Directory, *without: str) -> None:
    for number, (name, keys) in enumerate(members.keys.items()):
        about = {"name": name, "node": str(number), "key": name}
        write_json(home.node(name), about | ({} if name in without else {"sums": keys.hex}))


def test_the_doctor_tells_who_is_not_named(cloud):
    home, settings = cloud

    def told() -> list[tuple[str, Verdict]]:
        return [(one.check, one.verdict) for one in examine({"sums": groups(home, settings)["secure sums"]})]

    members = directory("anna", "ben", "cyd", "dan")
    enrol(home, members)
    assert told() == [("secure sums", Verdict.WRONG)]
    named(home, settings, members)
    assert told() == [("secure sums", Verdict.OK)]
    enrol(home, members, "dan")
    assert told() == [("secure sums", Verdict.WARNING), ("keys for sums", Verdict.WARNING)]
    assert examine({"sums": groups(home, settings.replace(secure_aggregation="off"))["secure sums"]}) == []


def test_a_run_that_goes_on_is_under_the_release_in_force_by_then(cloud):
    home, settings = cloud
    folder = home.runs / "one"
    named(home, settings, directory("anna", "ben", "cyd"))
    prepare(home, folder, settings, resume=False)
    release = named(home, settings, directory("anna", "ben", "cyd", "dan"))
    prepare(home, folder, settings, resume=True)
    kept = read_json(folder / MEMBERS)
    assert (kept["release"], sorted(kept["enrolled"])) == (release.digest, ["anna", "ben", "cyd", "dan"])


def test_without_sums_everybody_takes_part_and_nothing_is_kept(tmp_path):
    home, settings = make_cloud(tmp_path / "open")
    prepare(home, home.runs / "one", settings, resume=False)
    assert not (home.runs / "one" / MEMBERS).exists()
    job = Job(FakeGrid({}, honest), settings, home.runs / "one", lambda *_: None)
    assert contributing(job, settings, ["dan"]) == ["dan"]
