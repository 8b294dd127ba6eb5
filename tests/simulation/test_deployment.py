"""The documented federation over a network, word for word, with every byte that travels recorded."""

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cloud.deployment.clouds import needs_nginx
from tests.docs.blocks import DOCS, Block, blocks
from tests.edge.deployment.sandboxes import joined, unguarded
from tests.leaks import coded, found_in
from tests.shell import Shell, started_in
from tests.simulation.recorder import Recorder

from fedperfit.cloud.deployment.home import CONNECTION, CloudHome, read_cloud
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.signer import ask_for_release
from fedperfit.cloud.enrolment.inviting import enroll
from fedperfit.cloud.job.basis import settings_basis
from fedperfit.edge.deployment.supernode import SuperNode
from fedperfit.edge.releases.store import ReleaseStore
from fedperfit.edge.sandbox.traffic import read_traffic
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.files import read_json, read_json_lines, write_json
from fedperfit.protocol.system.flower import executable, latest_run
from fedperfit.protocol.system.processes import Children, wait_until
from fedperfit.protocol.trust.bundle import read_bundle

pytestmark = needs_nginx
PAGE = DOCS / "federation.md"
CLOUD = "our-cloud"
PEOPLE = ("ada", "ben", "carl")
CONTROL = "control"
"""A fourth node, without a guard."""
_SECONDS = 900.0
_FETCH_SECONDS = 2
"""Time between two looks of these edges for a release; for those of the page it is 30 s."""


def commands(block: int = 0) -> list[str]:
    """The commands of one shell block of the page."""
    return shell_blocks()[block].commands()


def shell_blocks() -> list[Block]:
    return [block for block in blocks(PAGE) if block.language == "sh"]


def test_it_takes_at_most_ten_commands():
    assert 5 <= len(commands()) + len(commands(-1)) <= 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("""it's "a" $d é""")
    yield folder
    for process in started_in(folder):
        process.kill()


@pytest.fixture(scope="module")
def federation(folder: Path) -> Iterator[tuple[Shell, Recorder]]:
    """The page's commands up to the run, edges joined through the recorder."""
    shell = Shell(folder)
    people, init, up, enroll, join, run, *_ = commands()
    for command in (people, init, up, enroll):
        shell.run(command)
    home = CloudHome(folder / CLOUD)
    try:
        with Recorder(home.tls, read_cloud(home).port, [*PEOPLE, CONTROL]).running() as recorder:
            for name in PEOPLE:
                path = folder / f"{name}.bundle"
                write_json(path, read_json(path) | {"address": f"127.0.0.1:{recorder.ports[name]}"})
            shell.run(join.replace("--agree", f"--agree --fetch-seconds {_FETCH_SECONDS}"))
            said = shell.run(run)
            assert "round 3 of 3: 3 updates, 0 dropped" in said
            assert "released version 1" in said
            yield shell, recorder
    finally:
        shell.end()


@pytest.mark.timeout(_SECONDS)
def test_the_federation_of_the_page(folder: Path, federation: tuple[Shell, Recorder]) -> None:
    shell, _ = federation
    home = CloudHome(folder / CLOUD)
    assert latest_run(CONNECTION, home.environment())["status"] == "finished:completed"
    (run,) = home.runs.iterdir()
    scores = {stage: read_json(run / "results" / f"evaluate-{stage}.json") for stage in ("base", "personal")}
    correct = {stage: sum(c["metrics"]["correct"] for c in scores[stage].values()) for stage in scores}
    assert correct["personal"] > correct["base"] + 10
    (release,) = CloudReleases(home.folder).verify()
    settings = read_cloud(home)
    basis = settings_basis(settings, read_card(settings.base_model))
    assert basis is not None
    assert Coordinates.of_shift(basis, release.shift) is not None, "updates are votes in the basis that ships"
    for name in PEOPLE:
        bundle = read_json(folder / f"{name}.bundle")
        store = ReleaseStore(
            *(folder / name / "releases",),
            pinned=bundle["release_key"],
            fingerprint=bundle["fingerprint"],
            task=bundle["task"],
        )
        assert store.current() == release
    explain, sent, generate = commands()[6:]
    assert "fitted" in shell.run(explain)
    told = shell.run(sent)
    calls = [line.split("│")[2].strip() for line in told.splitlines() if line.count("│") > 3]
    counts = {call: calls.count(call) for call in {*calls} - {""}}
    assert counts.pop("status") >= 1, "again while others were not there yet"
    assert counts == {"contribute": 3, "personalize": 1, "evaluate": 3}
    assert f"{sum(call != '' for call in calls)} messages" in told
    assert shell.run(generate).strip()


def forms(shift: Shift) -> dict[str, bytes]:
    """A shift's tensors as somebody might send them."""
    tensors = {"R": shift.R, "W": shift.W, "b": shift.b, "W-R": shift.W - shift.R}
    return {f"{name} {kind}": data for name, one in tensors.items() for kind, data in coded(one).items()}


def personal_bytes(folder: Path) -> dict[str, bytes]:
    """Everything that must not be seen, by what it is."""
    secret = {}
    for name in PEOPLE:
        vault = Vault(folder / name / "vault")
        for slot in vault.slots():
            for form, data in forms(vault.open(slot)[1]).items():
                secret[f"{name} {slot} {form}"] = data
        for number, item in enumerate(read_json_lines(folder / "people" / name / "history.jsonl")):
            secret[f"{name} item {number}"] = item["description"].encode()
        for number, item in enumerate(read_json_lines(folder / "people" / name / "questions.jsonl")):
            secret[f"{name} question {number}"] = item["input"].split("description: ")[-1].encode()
    return secret


def test_nothing_personal_is_on_the_wire(folder: Path, federation: tuple[Shell, Recorder]) -> None:
    shell, recorder = federation
    prompt = "Somebody tells of a lighthouse"
    secret = personal_bytes(folder)
    for name in PEOPLE:
        secret[f"{name} generated"] = shell.run(f'fedperfit-edge generate {name} "{prompt}"').strip().encode()
    assert len(secret) > 3 * (2 * 24 + 64)
    recorded = recorder.recorded
    assert len(recorded) > 3 * 37_000, "the rounds themselves are on the wire, first of all the basis"
    assert found_in(recorded, secret) == set()


_SPY_SERVER = """
import json, time
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    end = time.monotonic() + 240
    while len(list(grid.get_node_ids())) < {count} and time.monotonic() < end:
        time.sleep(0.5)
    nodes = list(grid.get_node_ids())
    replies = list(grid.send_and_receive([Message(RecordDict(), node, "query.spy") for node in nodes]))
    told = [dict(one.content.config_records["told"]) for one in replies if one.has_content()]
    for one in told:
        del one["planted"]
    with open({out!r}, "w") as file:
        json.dump({{"told": told, "errors": sum(one.has_error() for one in replies)}}, file)
"""
_SPY_CLIENT = """
import os
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.query("spy")
def spy(message, context):
    edge = Path(context.node_config["bridge"]).parent
    told = {{
        "seen": sorted(os.listdir(edge)),
        "there": [path for path in {places!r} if os.path.exists(path)],
        "planted": (edge / "node" / "planted").read_bytes(),
    }}
    return Message(RecordDict({{"told": ConfigRecord(told)}}), reply_to=message)
"""


def test_code_from_the_cloud_runs_at_no_edge_and_a_planted_leak_is_found(
    folder: Path, federation: tuple[Shell, Recorder]
) -> None:
    """The positive control: a fourth node that lacks the guard, with what is secret planted in its folder."""
    _, recorder = federation
    home = CloudHome(folder / CLOUD)
    secret = personal_bytes(folder)
    planted = {f"{name} full {form}" for name in PEOPLE for form in ("W fp32", "W bf16", "W int8")}
    planted |= {f"{name} item 5" for name in PEOPLE}
    enroll(home, CONTROL, folder / "control.bundle")
    bundle = read_bundle(folder / "control.bundle")
    control = joined(folder / CONTROL, replace(bundle, address=f"127.0.0.1:{recorder.ports[CONTROL]}"))
    (control.node / "planted").write_bytes(b"".join(secret[what] for what in sorted(planted)))
    app = folder / "spy"
    out = home.runs / "told.json"
    places = [str(folder / "people"), str(folder / "ada"), str(folder / CLOUD), str(control.folder)]
    app.mkdir()
    (app / "server.py").write_text(_SPY_SERVER.format(out=str(out), count=len(PEOPLE) + 1))
    (app / "client.py").write_text(_SPY_CLIENT.format(places=places))
    (app / "pyproject.toml").write_text(
        '[project]\nname = "spy"\nversion = "0.1.0"\ndependencies = []\n[tool.flwr.app]\npublisher = "spy"\n'
        '[tool.flwr.app.components]\nserverapp = "server:app"\nclientapp = "client:app"\n'
    )
    assert found_in(recorder.recorded, secret) == set()
    node = SuperNode(control, unconfined=False)
    with Children() as children, node.connected():
        node.start(children, unguarded(node))
        subprocess.run(
            [executable("flwr"), "run", str(app), CONNECTION, "--stream"],
            env=home.environment(),
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
        )
    assert latest_run(CONNECTION, home.environment())["status"] == "finished:completed"
    said = read_json(out)
    assert said == {"told": [{"seen": ["bridge", "node", "uplink"], "there": []}], "errors": len(PEOPLE)}
    for name in PEOPLE:
        log = (folder / name / "supernode.log").read_text()
        assert "refused, nothing of the run's code was executed: 'client.py' is not" in log
    assert found_in(recorder.recorded, secret) >= planted


def listening(port: int) -> None:
    """Wait until somebody listens on a port of the loopback."""
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.2)


def test_what_the_page_does_with_a_federation_that_is_up(federation: tuple[Shell, Recorder]) -> None:
    shell, _ = federation
    _, releases, lesson, serve, _ = shell_blocks()
    said = [shell.run(command) for command in releases.commands()]
    assert "1 release verified" in said[1]
    *_, learned, answer = [shell.run(command) for command in lesson.commands()]
    assert "learned 3, 3 in the vault" in learned
    assert answer.strip()
    for command in serve.commands():
        shell.run(command)


def in_force(folder: Path) -> set[int]:
    """The versions in force at the edges."""
    versions = set()
    for name in PEOPLE:
        bundle = read_json(folder / f"{name}.bundle")
        store = ReleaseStore(
            *(folder / name / "releases",),
            pinned=bundle["release_key"],
            fingerprint=bundle["fingerprint"],
            task=bundle["task"],
        )
        current = store.current()
        versions.add(current.version if current is not None else 0)
    return versions


def renewed_on(shell: Shell, version: int) -> bool:
    """Whether Ada's personal shift was renewed on a release in force."""
    told = shell.run(commands()[6])
    return f"release {version}, trained in" in told and f"for release {version}," in told


@pytest.mark.timeout(_SECONDS)
def test_edges_reach_what_is_released_and_what_replaces_it_without_a_run(
    folder: Path, federation: tuple[Shell, Recorder]
) -> None:
    shell, _ = federation
    home = CloudHome(folder / CLOUD)
    (release,) = CloudReleases(home.folder).verify()
    changed = release.shift
    changed.b.data += 0.01
    assert ask_for_release(home, changed, release.header).version == 2
    assert wait_until(lambda: in_force(folder) == {2}, 60), in_force(folder)
    assert wait_until(lambda: renewed_on(shell, 2), 120), shell.run(commands()[6])
    assert "version 3 is in force" in shell.run(f"fedperfit-cloud release revoke {CLOUD} 2")
    assert wait_until(lambda: in_force(folder) == {3}, 60), in_force(folder)
    assert wait_until(lambda: renewed_on(shell, 3), 120), shell.run(commands()[6])
    assert "the personal shift was renewed" in shell.run("fedperfit-edge log ada")


def test_the_page_speaks_with_the_served_model_as_any_front_end_does(
    folder: Path, federation: tuple[Shell, Recorder], capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = (block for block in blocks(PAGE) if block.language == "python")
    listening(8100)
    exec(block.text, {"TOKEN": (folder / "ada" / "owner" / "token").read_text()})
    assert capsys.readouterr().out


def test_afterwards_every_process_is_gone(folder: Path, federation: tuple[Shell, Recorder]) -> None:
    shell, _ = federation
    assert len(started_in(folder)) > 10
    assert re.fullmatch(r"kill \$\(jobs -p\); wait", commands(-1)[0])
    shell.run(commands(-1)[0] + "; true")
    end = time.monotonic() + 30
    while [p for p in started_in(folder) if p.pid != shell.process.pid] and time.monotonic() < end:
        time.sleep(0.2)
    assert [p.cmdline() for p in started_in(folder) if p.pid != shell.process.pid] == []


def test_each_edge_has_counted_the_bytes_that_the_proxy_saw(
    folder: Path, federation: tuple[Shell, Recorder]
) -> None:
    _, recorder = federation
    for name in PEOPLE:
        days = read_traffic(folder / name / "traffic.json").values()
        counted = [sum(direction) for direction in zip(*days, strict=True)]
        assert min(counted) > 30_000
        assert counted == pytest.approx(recorder.counted[name], rel=0.01)
