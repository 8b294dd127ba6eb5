"""An edge that joined has nothing wrong, everything that can break is told, and no word of the history."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from tests.edge.deployment.deployments import CLOUD, agree, policy, releases, settings
from tests.edge.edge_clients import write_client

from fedperfit.edge.audit.log import AuditLog
from fedperfit.edge.cli import main as cli
from fedperfit.edge.deployment import left_over
from fedperfit.edge.deployment.home import AgentSettings, Home
from fedperfit.edge.doctor import cloud as way
from fedperfit.edge.doctor import programs
from fedperfit.edge.doctor.examination import groups
from fedperfit.protocol.doctor.findings import Finding, Verdict, examine, ok
from fedperfit.protocol.schema import owner_pb2
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.files import read_json, read_json_lines, write_atomic, write_json
from fedperfit.protocol.trust.certificates import new_authority
from fedperfit.protocol.trust.node_key import NodeKey
from fedperfit.protocol.trust.pointer import Pointer
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.signing import SigningKey

Edge = tuple[Home, AgentSettings]


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short name, since those of sockets may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="edge-") as name:
        yield Path(name)


@pytest.fixture
def edge(folder: Path) -> Edge:
    """A folder as `join` leaves it, whose cloud is nowhere."""
    home = Home(folder / "ada lovelace")
    home.folder.mkdir(mode=0o700)
    write_client(home.folder)
    agree(home.folder, policy())
    settings().write(home)
    NodeKey().write(home.node_key)
    write_atomic(home.enrolment, b"d")
    write_atomic(home.authority, new_authority("x").certificate)
    write_json(home.node / "address.json", {"address": "127.0.0.1:9"})
    log = AuditLog(home.audit)
    log.add({"event": "request"}, {"event": "sent", "call": "status", "bytes": 3})
    log.close()
    return home, settings()


def found(edge: Edge, group: str) -> dict[str, Finding]:
    """Findings of one group that are not well, by check."""
    findings = examine({group: groups(*edge)[group]})
    return {one.check: one for one in findings if one.verdict is not Verdict.OK}


def test_an_edge_that_joined_has_nothing_wrong_but_no_cloud(edge):
    told = {name: found(edge, name) for name in groups(*edge) if name != "machine"}
    assert {name for name, findings in told.items() if findings} == {"history", "programs", "cloud"}
    assert set(told["history"]) == {"vault's key"}
    assert set(told["programs"]) == {"agent"}
    assert {one.verdict for one in told["cloud"].values()} == {Verdict.WRONG}


def open_to_others(home: Home, header: ShiftHeader) -> None:
    home.node_key.chmod(0o644)


def not_enrolled(home: Home, header: ShiftHeader) -> None:
    home.enrolment.unlink()


def lose_history(home: Home, header: ShiftHeader) -> None:
    (home.folder / "history.jsonl").unlink()


def lose_key(home: Home, header: ShiftHeader) -> None:
    write_json(home.folder / "client.json", {**read_json(home.folder / "client.json"), "sealed": True})


def agree_to_nothing(home: Home, header: ShiftHeader) -> None:
    home.policy.unlink()


def change_policy(home: Home, header: ShiftHeader) -> None:
    signed = read_json(home.policy)
    signed["policy"]["least_items"] = 5
    write_json(home.policy, signed)


def agree_to_another_model(home: Home, header: ShiftHeader) -> None:
    agree(home.folder, policy(fingerprint="0" * 64))


def release_expired(home: Home, header: ShiftHeader) -> None:
    released(home, header, timedelta(days=9))


def release_that_expires_soon(home: Home, header: ShiftHeader) -> None:
    released(home, header, timedelta(days=102))


def released(home: Home, header: ShiftHeader, lifetime: timedelta) -> None:
    issued = datetime.now(UTC) - timedelta(days=100)
    shift = Shift.identity(header.shape, seed=0)
    release = Release.first(shift, header, CLOUD, issued=issued, lifetime=lifetime)
    write_atomic(home.releases / "00000001.safetensors", release.to_bytes())


def break_release(home: Home, header: ShiftHeader) -> None:
    write_atomic(home.releases / "00000001.safetensors", b"nothing")


def foreign_release(home: Home, header: ShiftHeader) -> None:
    release = Release.first(Shift.identity(header.shape, seed=0), header, SigningKey())
    write_atomic(home.releases / "00000001.safetensors", release.to_bytes())


def revoked(home: Home, header: ShiftHeader) -> None:
    (release,) = releases(header, 1)
    write_atomic(home.releases / "00000001.safetensors", release.to_bytes())
    write_atomic(home.releases / "in-force.json", Pointer.signed(None, CLOUD, revoked=(1,)).to_bytes())


def no_news(home: Home, header: ShiftHeader) -> None:
    issued = datetime.now(UTC) - timedelta(hours=9)
    write_atomic(home.releases / "in-force.json", Pointer.signed(None, CLOUD, issued=issued).to_bytes())


def change_log(home: Home, header: ShiftHeader) -> None:
    (path,) = home.audit.glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"request"', b'"other"'))


@pytest.mark.parametrize(
    ("harm", "group", "check", "verdict"),
    [
        (open_to_others, "folder", "access to node.key", Verdict.WRONG),
        (not_enrolled, "folder", "enrolment", Verdict.WRONG),
        (lose_history, "history", "history", Verdict.WRONG),
        (lose_key, "history", "vault's key", Verdict.WRONG),
        (agree_to_nothing, "policy", "policy", Verdict.WRONG),
        (change_policy, "policy", "policy", Verdict.WRONG),
        (agree_to_another_model, "policy", "base model", Verdict.WRONG),
        (release_expired, "releases", "release in force", Verdict.WRONG),
        (release_that_expires_soon, "releases", "release in force", Verdict.WARNING),
        (break_release, "releases", "releases", Verdict.WRONG),
        (foreign_release, "releases", "releases", Verdict.WRONG),
        (revoked, "releases", "release in force", Verdict.WARNING),
        (no_news, "releases", "news of releases", Verdict.WARNING),
        (change_log, "log", "log", Verdict.WRONG),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_what_is_broken_is_told_with_what_to_do(
    edge: Edge,
    header: ShiftHeader,
    harm: Callable[[Home, ShiftHeader], None],
    group: str,
    check: str,
    verdict: Verdict,
) -> None:
    harm(edge[0], header)
    told = found(edge, group)[check]
    assert told.verdict is verdict
    assert told.said
    assert told.advice


def test_a_missing_base_model_is_wrong(edge):
    home, agent = edge
    gone = agent.replace(base_model=str(home.folder / "gone"))
    assert found((home, gone), "policy")["base model"].verdict is Verdict.WRONG


def test_an_agent_whose_join_is_gone_is_wrong(edge, monkeypatch):
    home, _ = edge
    line = ["python", "-P", "-m", "fedperfit.edge.cli.main", "agent", str(home.folder)]

    def agent(*parent: str) -> SimpleNamespace:
        above = SimpleNamespace(cmdline=lambda: list(parent))
        ours = SimpleNamespace(real=os.getuid())
        return SimpleNamespace(pid=4711, cmdline=lambda: line, parent=lambda: above, uids=lambda: ours)

    for parent, expected in ((("/sbin/init",), {"orphaned agent", "agent"}), (("python", "join"), {"agent"})):
        one = agent(*parent)
        monkeypatch.setattr(left_over.psutil, "process_iter", lambda one=one: [one])
        told = found(edge, "programs")
        assert set(told) == expected
        if "orphaned agent" in told:
            assert "kill 4711" in told["orphaned agent"].advice


def test_a_sandbox_whose_join_is_gone_is_wrong(edge, monkeypatch):
    monkeypatch.setattr(programs, "left_sandboxes", lambda home: [SimpleNamespace(pid=4712)])
    assert "kill -9 4712" in found(edge, "programs")["orphaned sandbox"].advice


@pytest.mark.parametrize(
    ("state", "check"),
    [
        ({"problem": "there is no release yet"}, "personal answers"),
        ({"paused": True}, "consent"),
        ({"not_consented": ["pull"]}, "consent"),
        ({"refused": 3, "refusal": "contribute: too few"}, "refused requests"),
        ({}, ""),
    ],
)
def test_what_a_running_agent_tells_is_told(edge, monkeypatch, state, check):
    monkeypatch.setattr(programs, "_explained", lambda home: owner_pb2.Explanation(stage="base", **state))
    assert set(found(edge, "programs")) == ({check} if check else set())


@pytest.mark.parametrize(("minutes", "verdict"), [(0, Verdict.OK), (20, Verdict.WRONG)])
def test_clocks_that_are_apart_are_wrong(edge, monkeypatch, minutes, verdict):
    there = (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    transport = httpx.MockTransport(lambda request: httpx.Response(404, headers={"date": there}))
    client = httpx.Client(transport=transport)
    monkeypatch.setattr(way.httpx, "Client", lambda **_: client)
    monkeypatch.setattr(way, "reach", lambda *_: [ok("way", "answers")])
    findings = {one.check: one.verdict for one in examine({"cloud": groups(*edge)["cloud"]})}
    assert findings["clocks of cloud and edge"] is verdict


def test_a_clock_that_is_behind_what_was_signed_is_wrong(edge, header):
    home, _ = edge
    issued = datetime.now(UTC) + timedelta(hours=1)
    pointer = Pointer.signed(None, CLOUD, issued=issued)
    write_atomic(home.releases / "in-force.json", pointer.to_bytes())
    assert found(edge, "machine")["clock"].verdict is Verdict.WRONG


def test_no_word_of_the_history_is_told(edge, monkeypatch, capsys):
    home, _ = edge
    items = read_json_lines(home.folder / "history.jsonl")
    (home.folder / "history.jsonl").write_text('{"secret words": 1}\n')
    monkeypatch.setattr(sys, "argv", ["fedperfit-edge", "doctor", str(home.folder), "--json"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    said = capsys.readouterr().out
    assert {one["check"] for one in json.loads(said) if one["verdict"] == "wrong"} >= {"history"}
    assert "secret words" not in said
    assert not any(str(value) in said for item in items for value in item.values() if len(str(value)) > 3)
