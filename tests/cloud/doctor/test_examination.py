"""A cloud that was just made has nothing wrong, and everything that can break is told."""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.cloud.deployment.clouds import make_cloud

from fedperfit.cloud.cli import main as cli
from fedperfit.cloud.deployment.certificate_authority import rotate_authority
from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.doctor import programs
from fedperfit.cloud.doctor.examination import groups
from fedperfit.cloud.enrolment.invitations import Invitation, write_invitation
from fedperfit.cloud.enrolment.policy import POLICY, offered
from fedperfit.protocol.doctor.findings import Finding, Verdict, examine
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.trust.certificates import Certificate, issue
from fedperfit.protocol.trust.node_key import NodeKey
from fedperfit.protocol.trust.policy import sign_policy, verify_policy, write_policy
from fedperfit.protocol.trust.published import release_file
from fedperfit.protocol.trust.release import Release

Cloud = tuple[CloudHome, CloudSettings]


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return make_cloud(tmp_path / "a cloud")


def release(home: CloudHome, settings: CloudSettings, lifetime: timedelta = timedelta(days=90)) -> None:
    shift, header = to_release(home, settings)
    CloudReleases(home.folder).publish(shift, header, lifetime=lifetime)


def to_release(home: CloudHome, settings: CloudSettings) -> tuple[Shift, ShiftHeader]:
    card = read_card(settings.base_model)
    shape = settings.shape(card)
    about = {"task": settings.task_id, "fingerprint": card.fingerprint, "round": 3, "dtype": "float32"}
    seed = len(CloudReleases(home.folder).all())
    return Shift.identity(shape, seed=seed), ShiftHeader(shape=shape, **about)


def found(cloud: Cloud, group: str) -> dict[str, Finding]:
    """Findings of one group that are not well, by check."""
    findings = examine({group: groups(*cloud)[group]})
    return {one.check: one for one in findings if one.verdict is not Verdict.OK}


def test_a_new_cloud_has_nothing_wrong_and_is_not_up(cloud):
    findings = examine({name: group for name, group in groups(*cloud).items() if name != "machine"})
    assert {one.check for one in findings if one.verdict is not Verdict.OK} == {"up"}


def break_signing_key(home: CloudHome, settings: CloudSettings) -> None:
    (home.folder / "signing.pem").write_text("nothing")


def age_signing_key(home: CloudHome, settings: CloudSettings) -> None:
    long_ago = time.time() - 3 * 365 * 86_400
    os.utime(home.folder / "signing.pem", (long_ago, long_ago))


def expire(home: CloudHome, settings: CloudSettings) -> None:
    authority = Certificate((home.tls / "ca.crt").read_bytes(), (home.tls / "ca.key").read_bytes())
    ended = issue(authority, [settings.host], life=timedelta(days=-1))
    (home.tls / "server.crt").write_bytes(ended.certificate)


def name_another_host(home: CloudHome, settings: CloudSettings) -> None:
    authority = Certificate((home.tls / "ca.crt").read_bytes(), (home.tls / "ca.key").read_bytes())
    (home.tls / "server.crt").write_bytes(issue(authority, ["elsewhere"]).certificate)


def open_to_others(home: CloudHome, settings: CloudSettings) -> None:
    (home.tls / "ca.key").chmod(0o644)


def lie_in_a_work_tree(home: CloudHome, settings: CloudSettings) -> None:
    (home.folder.parent / ".git").mkdir()


def offer_another_policy(home: CloudHome, settings: CloudSettings) -> None:
    key = CloudReleases(home.folder).key()
    changed = settings.replace(clip_norm=2 * settings.clip_norm)
    write_policy(home.folder / POLICY, offered(home, changed, key))


def release_expired(home: CloudHome, settings: CloudSettings) -> None:
    store = CloudReleases(home.folder)
    long_ago = datetime.now(UTC) - timedelta(days=100)
    first = Release.first(
        *to_release(home, settings), store.key(), issued=long_ago, lifetime=timedelta(days=9)
    )
    write_atomic(home.folder / "releases" / release_file(1), first.to_bytes())
    store.renew_pointer()


def release_that_expires_soon(home: CloudHome, settings: CloudSettings) -> None:
    release(home, settings, lifetime=timedelta(days=2))


def break_release(home: CloudHome, settings: CloudSettings) -> None:
    release(home, settings)
    (home.folder / "releases" / "00000001.safetensors").write_bytes(b"nothing")


def lose_pointer(home: CloudHome, settings: CloudSettings) -> None:
    release(home, settings)
    (home.folder / "releases" / "in-force.json").unlink()


def keep_old_pointer(home: CloudHome, settings: CloudSettings) -> None:
    release(home, settings)
    pointer = home.folder / "releases" / "in-force.json"
    kept = pointer.read_bytes()
    release(home, settings)
    pointer.write_bytes(kept)


def revoke_all(home: CloudHome, settings: CloudSettings) -> None:
    release(home, settings)
    CloudReleases(home.folder).revoke(1)


def leave_waiting(home: CloudHome, settings: CloudSettings) -> None:
    invitation, _ = Invitation.new("ada", datetime.now(UTC), approve=True)
    write_invitation(home, invitation.taken_by(NodeKey().public))


def leave_half_registered(home: CloudHome, settings: CloudSettings) -> None:
    invitation, _ = Invitation.new("ada", datetime.now(UTC), approve=False)
    write_invitation(home, invitation.taken_by(NodeKey().public))


@pytest.mark.parametrize(
    ("harm", "group", "check", "verdict"),
    [
        (break_signing_key, "keys", "signing key", Verdict.WRONG),
        (age_signing_key, "keys", "signing key", Verdict.WARNING),
        (expire, "keys", "the server's certificate", Verdict.WRONG),
        (name_another_host, "keys", "certificate's names", Verdict.WRONG),
        (open_to_others, "folder", "access to ca.key", Verdict.WRONG),
        (lie_in_a_work_tree, "folder", "folder's place", Verdict.WARNING),
        (offer_another_policy, "base model", "policy", Verdict.WARNING),
        (release_expired, "releases", "release in force", Verdict.WRONG),
        (release_that_expires_soon, "releases", "release in force", Verdict.WARNING),
        (revoke_all, "releases", "release in force", Verdict.WARNING),
        (break_release, "releases", "releases", Verdict.WRONG),
        (lose_pointer, "releases", "pointer", Verdict.WRONG),
        (keep_old_pointer, "releases", "pointer", Verdict.WRONG),
        (leave_waiting, "people", "approval", Verdict.WARNING),
        (leave_half_registered, "people", "enrolment", Verdict.WARNING),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_what_is_broken_is_told_with_what_to_do(
    cloud: Cloud, harm: Callable[[CloudHome, CloudSettings], None], group: str, check: str, verdict: Verdict
) -> None:
    harm(*cloud)
    (told,) = found(cloud, group).values()
    assert (told.check, told.verdict) == (check, verdict)
    assert told.said
    assert told.advice


def test_a_missing_base_model_is_wrong(cloud):
    home, settings = cloud
    settings = settings.replace(base_model=str(home.folder / "gone"))
    assert found((home, settings), "base model")["base model"].verdict is Verdict.WRONG


def test_another_base_model_than_edges_agreed_to_is_wrong(cloud):
    home, settings = cloud
    write_policy(home.folder / POLICY, offered(home, settings, CloudReleases(home.folder).key()))
    assert not found(cloud, "base model")
    key = CloudReleases(home.folder).key()
    signed = offered(home, settings, key)
    changed = verify_policy(signed, key.public).replace(fingerprint="0" * 64)
    write_policy(home.folder / POLICY, sign_policy(changed, key))
    assert found(cloud, "base model")["policy"].verdict is Verdict.WRONG


def test_a_new_authority_is_told(cloud):
    rotate_authority(cloud[0], 3)
    findings = examine({"keys": groups(*cloud)["keys"]})
    assert "next authority" in {one.check for one in findings}


def test_a_port_that_another_program_holds_is_wrong(cloud):
    _home, settings = cloud
    with socket.create_server(("127.0.0.1", settings.port)):
        told = found(cloud, "programs")[f"port {settings.port}"]
    assert told.verdict is Verdict.WRONG
    assert str(os.getpid()) in told.said


def test_processes_that_a_killed_up_left_are_wrong(cloud, monkeypatch):
    monkeypatch.setattr(programs, "processes", lambda home: [SimpleNamespace(pid=4711)])
    told = found(cloud, "programs")["left over"]
    assert told.verdict is Verdict.WRONG
    assert "4711" in told.said


def test_a_cloud_that_is_up_but_does_not_answer_is_wrong(cloud, monkeypatch):
    monkeypatch.setattr(programs, "held", lambda home: True)
    told = found(cloud, "programs")
    _home, settings = cloud
    assert {name for name, one in told.items() if one.verdict is Verdict.WRONG} == {
        *(f"port {settings.port}", f"superlink-port {settings.superlink_port}"),
        *("signer", "superlink", "registrar", f"way to {settings.host}"),
    }


@pytest.mark.parametrize("broken", [False, True])
def test_the_command_exits_with_1_where_something_is_wrong(cloud, monkeypatch, capsys, broken):
    home, _ = cloud
    if shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.skip("nginx is not installed")
    if broken:
        open_to_others(*cloud)
    monkeypatch.setattr(sys, "argv", ["fedperfit-cloud", "doctor", str(home.folder), "--json"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    findings = json.loads(capsys.readouterr().out)
    machine = {"user namespaces", "program bwrap", "clock", "disk"}
    wrong = {one["check"] for one in findings if one["verdict"] == "wrong"} - machine
    assert wrong == ({"access to ca.key"} if broken else set())
    if broken:
        assert stopped.value.code == 1
