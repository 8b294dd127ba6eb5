"""The README's federation over a network, word for word, with every byte between edges and cloud recorded."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.cloud.deployment.clouds import needs_nginx
from tests.leaks import coded, found_in
from tests.simulation.recorder import Recorder

from fedperfit.cloud.deployment.home import CONNECTION, CloudHome, read_cloud
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.edge.deployment.releases import ReleaseStore
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.files import read_json, read_json_lines, write_json
from fedperfit.protocol.system.flower import QUIET, executable, latest_run

pytestmark = needs_nginx
README = Path(__file__).parents[2] / "README.md"
PEOPLE = ("ada", "ben", "carl")
_SECONDS = 400.0


def commands() -> list[str]:
    section = README.read_text().split("## A federation over a network")[1].split("\n## ")[0]
    block = section[section.index("\n    ") :].split("\n\n")[0]
    found = [line.strip() for line in block.splitlines() if line]
    assert 5 <= len(found) <= 10
    return found


class Shell:
    """An interactive user's shell, command by command."""

    def __init__(self, folder: Path) -> None:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        root = str(Path(__file__).parents[2])
        self.process = subprocess.Popen(
            ["bash"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **QUIET, "PATH": path, "PYTHONPATH": root},
        )

    def run(self, command: str) -> str:
        """Run a command and return the output, with that of background jobs; fail when the command fails."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\necho __done $?\n")
        self.process.stdin.flush()
        said = []
        for line in self.process.stdout:
            if "__done" in line:
                assert line.split("__done ")[1].strip() == "0", command + "\n" + "".join(said)
                return "".join(said)
            said.append(line)
        raise AssertionError(f"the shell ended: {''.join(said)}")


def started_in(folder: Path) -> list[psutil.Process]:
    """Every process that knows this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            told = " ".join(process.cmdline()) + str(process.environ()) + process.cwd()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if str(folder) in told and process.pid != os.getpid():
            found.append(process)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("d")
    yield folder
    for process in started_in(folder):
        process.kill()


@pytest.fixture(scope="module")
def federation(folder: Path) -> Iterator[tuple[Shell, Recorder]]:
    """The README's commands up to the run, edges joined through the recorder."""
    shell = Shell(folder)
    people, init, up, enroll, join, run, *_ = commands()
    for command in (people, init, up, enroll):
        shell.run(command)
    home = CloudHome(folder / "cloud")
    try:
        with Recorder(home.tls, read_cloud(home).port).running() as recorder:
            for name in PEOPLE:
                path = folder / f"{name}.bundle"
                write_json(path, read_json(path) | {"address": f"127.0.0.1:{recorder.port}"})
            shell.run(join)
            said = shell.run(run)
            assert "round 3 of 3: 3 updates, 0 dropped" in said
            assert "released version 1" in said
            yield shell, recorder
    finally:
        shell.process.kill()
        shell.process.wait()


@pytest.mark.timeout(_SECONDS)
def test_the_readmes_federation(folder: Path, federation: tuple[Shell, Recorder]) -> None:
    shell, _ = federation
    home = CloudHome(folder / "cloud")
    assert latest_run(CONNECTION, home.environment())["status"] == "finished:completed"
    (run,) = home.runs.iterdir()
    scores = {stage: read_json(run / "results" / f"evaluate-{stage}.json") for stage in ("base", "personal")}
    correct = {stage: sum(c["metrics"]["correct"] for c in scores[stage].values()) for stage in scores}
    assert correct["personal"] > correct["base"] + 10
    (release,) = CloudReleases(home.folder).verify()
    for name in PEOPLE:
        bundle = read_json(folder / f"{name}.bundle")
        store = ReleaseStore(
            *(folder / name / "releases",),
            pinned=bundle["release_key"],
            fingerprint=bundle["fingerprint"],
            task=bundle["task"],
        )
        assert store.current() == release
    explain, sent, generate = commands()[6:9]
    assert "fitted" in shell.run(explain)
    assert "8 messages" in shell.run(sent), "status, three rounds, personalize, three evaluations"
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
    assert len(recorded) > 3 * 3 * 2 * 24_000, "the rounds themselves are on the wire"
    assert found_in(recorded, secret) == set()


_SPY_SERVER = """
import json
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    nodes = list(grid.get_node_ids())
    replies = grid.send_and_receive([Message(RecordDict(), node, "query.spy") for node in nodes])
    told = [dict(reply.content.config_records["told"]) for reply in replies]
    for one in told:
        del one["planted"]
    with open({out!r}, "w") as file:
        json.dump(told, file)
"""
_SPY_CLIENT = """
import glob, os, socket
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

def attempt(act):
    try:
        return str(act())
    except Exception as error:
        return type(error).__name__

def connect(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(str(path))

def write(place):
    with open(place + "/planted-by-the-cloud", "w"):
        pass

def umount(folder):
    import ctypes
    return ctypes.CDLL(None, use_errno=True).umount2(str(folder).encode(), 2)

@app.query("spy")
def spy(message, context):
    bridge = Path(context.node_config["bridge"]) / "agent.sock"
    home = bridge.parents[1]
    history = {people!r} + "/" + home.name + "/history.jsonl"
    told = {{
        "name": home.name,
        "seen": " ".join(sorted(os.listdir(home))),
        "owner": attempt(lambda: connect(home / "owner" / "agent.sock")),
        "bridge": attempt(lambda: connect(bridge)),
        "history": attempt(lambda: len(Path(history).read_text())),
        "umount": attempt(lambda: umount(home)),
        "after": " ".join(sorted(os.listdir(home))),
        "others": " ".join(sorted(os.listdir(home.parent))),
        "written": " ".join(place for place in {places!r} if attempt(lambda: write(place)) == "None"),
        "elsewhere": " ".join(p for p in glob.glob("/proc/[0-9]*/root" + str(home) + "/vault")),
        "planted": Path(home / "node" / "planted").read_bytes(),
    }}
    return Message(RecordDict({{"told": ConfigRecord(told)}}), reply_to=message)
"""


def test_code_from_the_cloud_sees_nothing_and_a_planted_leak_is_found(
    folder: Path, federation: tuple[Shell, Recorder]
) -> None:
    """The positive control: a ClientApp of the cloud's own choosing, sent to every edge."""
    _, recorder = federation
    home = CloudHome(folder / "cloud")
    secret = personal_bytes(folder)
    planted = {f"{name} full {form}" for name in PEOPLE for form in ("W fp32", "W bf16", "W int8")}
    planted |= {f"{name} item 5" for name in PEOPLE}
    for name in PEOPLE:
        mine = [secret[what] for what in sorted(planted) if what.startswith(f"{name} ")]
        (folder / name / "node" / "planted").write_bytes(b"".join(mine))
    app = folder / "spy"
    out = folder / "told.json"
    places = [sysconfig.get_path("purelib"), sys.prefix, "/etc", "/usr/local/bin", str(folder / "cloud")]
    (app).mkdir()
    (app / "server.py").write_text(_SPY_SERVER.format(out=str(out)))
    (app / "client.py").write_text(_SPY_CLIENT.format(people=str(folder / "people"), places=places))
    (app / "pyproject.toml").write_text(
        '[project]\nname = "spy"\nversion = "0.1.0"\ndependencies = []\n[tool.flwr.app]\npublisher = "spy"\n'
        '[tool.flwr.app.components]\nserverapp = "server:app"\nclientapp = "client:app"\n'
    )
    before = len(recorder.recorded)
    subprocess.run(
        [executable("flwr"), "run", str(app), CONNECTION, "--stream"],
        env=home.environment(),
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_SECONDS,
    )
    assert latest_run(CONNECTION, home.environment())["status"] == "finished:completed"
    told = {one["name"]: one for one in json.loads(out.read_text())}
    assert set(told) == set(PEOPLE)
    for one in told.values():
        assert one["seen"] == one["after"] == "bridge node"
        assert one["bridge"] == "None", "it reaches the agent's bridge"
        assert one["owner"] == "FileNotFoundError"
        assert one["history"] == "FileNotFoundError"
        assert one["others"] == one["name"], "people with folders beside this one are not there"
        assert one["written"] == "", "no program that runs later can be changed"
        assert one["umount"] == "-1"
        assert one["elsewhere"] == ""
    assert len(recorder.recorded) > before
    assert found_in(recorder.recorded, secret) >= planted


def test_afterwards_every_process_is_gone(folder: Path, federation: tuple[Shell, Recorder]) -> None:
    shell, _ = federation
    assert len(started_in(folder)) > 10
    assert re.fullmatch(r"kill \$\(jobs -p\); wait", commands()[-1])
    shell.run(commands()[-1] + "; true")
    end = time.monotonic() + 30
    while [p for p in started_in(folder) if p.pid != shell.process.pid] and time.monotonic() < end:
        time.sleep(0.2)
    assert [p.cmdline() for p in started_in(folder) if p.pid != shell.process.pid] == []
