import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict
from tests.cloud.fake_grid import HEADER, SHAPE, FakeGrid, federation, honest, perturbed

from fedperfit.cloud.cli import main as cli
from fedperfit.cloud.deployment.home import CloudHome, init
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.enrolment import registration
from fedperfit.cloud.enrolment.invitations import Invitation, write_invitation
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.shift.shift_file import sha256
from fedperfit.protocol.trust.authorities import parse_authorities
from fedperfit.protocol.trust.node_key import NodeKey, fingerprint
from fedperfit.protocol.trust.validity import parse_time

SHIFT = perturbed(Shift.identity(SHAPE, seed=0), "release")


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["fedperfit-cloud", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_certificates_are_shown_and_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "tls", "show", tmp_path) == 2
    assert capsys.readouterr().err.count("\n") == 1
    init(CloudHome(tmp_path), "quickstart", {})
    for arguments, code, words in (
        (("renew",), 0, "used when `up` is started again"),
        (("rotate", "--days", "3"), 0, "takes over on the first `up` after"),
        (("rotate",), 2, "being changed already"),
        (("show",), 0, "a new authority takes over"),
    ):
        name, *options = arguments
        assert command(monkeypatch, "tls", name, tmp_path, *options) == code
        said = capsys.readouterr()
        assert words in said.out + said.err


def test_a_folders_name_is_no_markup_and_stays_on_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a[/x]\nb"
    assert command(monkeypatch, "init", folder) == 0
    assert f"made {tmp_path}/a[/x]?b: " in capsys.readouterr().out
    assert command(monkeypatch, "policy", folder, tmp_path / "[b]\n.policy") == 0
    assert capsys.readouterr().out.endswith("--accept [b]?.policy\n")


def test_a_cloud_comes_up_within_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(CloudHome(tmp_path), "quickstart", {"memory-gib": 3})
    did: list[object] = []
    monkeypatch.setattr("fedperfit.protocol.system.memory.limit_memory", did.append)
    monkeypatch.setattr("fedperfit.cloud.deployment.up.up", lambda *_, **__: did.append("up"))
    assert command(monkeypatch, "up", tmp_path) == 0
    assert did == [3.0, "up"]


def test_who_waits_is_listed_and_approved_by_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, approved = CloudHome(tmp_path), []
    init(home, "quickstart", {})
    monkeypatch.setattr(registration, "approve", lambda home, *name_and_key: approved.append(name_and_key))
    assert command(monkeypatch, "approve", home.folder) == 0
    assert "nobody waits" in capsys.readouterr().out
    key = NodeKey().public
    invitation, _ = Invitation.new("ada", datetime.now(UTC), approve=True)
    write_invitation(home, invitation.taken_by(key))
    for arguments, code, words in (
        ((), 0, fingerprint(key)),
        (("ben",), 2, "ben does not wait"),
        (("ada",), 2, "add --fingerprint"),
        (("ada", "--fingerprint", "SHA256:x"), 0, "ada is enrolled"),
    ):
        assert command(monkeypatch, "approve", home.folder, *arguments) == code
        said = capsys.readouterr()
        assert words in said.out + said.err
    assert approved == [("ada", "SHA256:x")]


def test_the_life_of_a_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    init(CloudHome(tmp_path), "quickstart", {})
    assert command(monkeypatch, "release", "list", tmp_path) == 2
    assert "no release yet" in capsys.readouterr().err
    first = CloudReleases(tmp_path).publish(SHIFT, HEADER)
    assert command(monkeypatch, "release", "rotate", tmp_path) == 0
    assert command(monkeypatch, "release", "list", tmp_path) == 0
    capsys.readouterr()
    assert command(monkeypatch, "release", "verify", tmp_path, "--key", first.key) == 0
    assert "2 releases verified" in capsys.readouterr().out
    assert command(monkeypatch, "release", "show", tmp_path) == 0
    shown = capsys.readouterr().out
    for text in (sha256(first.packed), first.digest, "LaMP_2M", "l7", "1, 2"):
        assert text in shown
    key = CloudReleases(tmp_path).key().public
    told = (tmp_path / "tls" / "authorities.json").read_bytes()
    assert parse_authorities(told, first.key) == parse_authorities(told, key), "edges follow to the new key"
    (tmp_path / "releases" / "00000001.safetensors").unlink()
    assert command(monkeypatch, "release", "verify", tmp_path) == 2
    assert "release 2 does not follow" in capsys.readouterr().err


def lifetime(folder: Path) -> timedelta:
    """Validity of the latest release."""
    latest = CloudReleases(folder).latest()
    assert latest is not None
    return parse_time(latest.expires) - parse_time(latest.issued)


def test_a_revoked_release_is_replaced_by_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    init(CloudHome(tmp_path), "quickstart", {"lifetime-days": 3})
    for seed in ("one", "two"):
        CloudReleases(tmp_path).publish(perturbed(Shift.identity(SHAPE, seed=0), seed), HEADER)
    assert command(monkeypatch, "release", "revoke", tmp_path, 2) == 0
    assert "revoked version 2; version 3 is in force" in capsys.readouterr().out
    assert lifetime(tmp_path) == timedelta(days=3)
    assert command(monkeypatch, "release", "revoke", tmp_path, 2) == 2
    assert "version 2 was revoked already" in capsys.readouterr().err
    assert command(monkeypatch, "release", "list", tmp_path) == 0
    shown = capsys.readouterr().out
    assert shown.count("revoked") == shown.count("in force") == 1
    assert command(monkeypatch, "release", "revoke", tmp_path, 3) == 0
    assert "revoked version 3; no release is in force" in capsys.readouterr().out


def test_show_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(client: str, message: Message) -> list[Message]:
        return [Message(RecordDict(), reply_to=message)] if client == "b[en]" else honest(client, message)

    grid = FakeGrid({1: "anna", 2: "b[en]"}, answer)
    federation(tmp_path, grid).train(["anna", "b[en]"], lambda report: None)
    assert command(monkeypatch, "checkpoint", "show", tmp_path / "checkpoints") == 0
    shown = capsys.readouterr().out
    assert "LaMP_2M, 2 rounds" in shown
    assert "round 1: dropped b[en]: the record" in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["release", "show", "missing"], "missing: no such file"),
        (["release", "show", "."], "error: "),
        (["checkpoint", "show", "missing"], "missing: no such folder"),
        (["checkpoint", "show", "."], ".: no checkpoint"),
        (["approve", "missing"], "missing: no cloud here"),
        (["unenroll", "missing", "ada"], "missing: no cloud here"),
        (["release", "rotate", "missing"], "missing: no "),
        (["release", "revoke", "missing", "1"], "missing: no cloud here"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert reason in errors
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["release"], ["release", "show"], ["checkpoint", "show"]])
def test_help_teaches(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *arguments, "--help") == 0
    assert "Usage: fedperfit-cloud" in capsys.readouterr().out
