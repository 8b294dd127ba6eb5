"""A wheel of a fresh clone in its own environment, used from a folder that is easily imported by mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import psutil
import pytest
from tests.edge.deployment.deployments import policy

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.enrolment.settling import settle
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.system.processes import SAFE_PATH, wait_until
from fedperfit.protocol.tasks import task_by_name
from fedperfit.protocol.trust.bundle import Bundle, identify_bundle
from fedperfit.protocol.trust.certificates import new_authority
from fedperfit.protocol.trust.node_key import NodeKey
from fedperfit.protocol.trust.policy import sign_policy
from fedperfit.protocol.trust.signing import SigningKey

ROOT = Path(__file__).parents[1]
SMALL = ("others=2", "targets=1", "new=1", "world-history=8", "world-questions=4", "rounds=1", "device=cpu")
HOSTILE = (
    *("fedperfit.py", "cloud.py", "protocol.py", "simulation.py", "edge/__init__.py", "edge/cli.py"),
    *(
        "configs/__init__.py",
        "apps.py",
        "server.py",
        "client.py",
        "flwr.py",
        "torch.py",
        "typer.py",
        "json.py",
    ),
    *("multiprocessing.py", "encodings/__init__.py", "sitecustomize.py"),
)


def programs(folder: Path) -> dict[str, str]:
    """This process's environment with the programs of a virtual environment, and none of our sources."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", *SAFE_PATH)}
    return kept | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def inside(bare: Path, folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command in `folder` with the programs of the environment `bare`."""
    return subprocess.run(
        command, cwd=folder, env=programs(bare), capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it, which finds the libraries of this one but no install of ours."""
    folder = tmp_path_factory.mktemp("wheel")
    clone, wheels, bare = folder / "clone", folder / "wheels", folder / "bare"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(wheels), str(clone)]
    subprocess.run(build, check=True)
    shutil.rmtree(clone)
    venv.create(bare)
    (wheel,) = wheels.glob("*.whl")
    python = bare / "bin" / "python"
    install = [*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True)
    (packages,) = bare.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for program in Path(sysconfig.get_path("scripts")).glob("fl*w*r*"):
        text = program.read_text().split("\n", 1)[1]
        (bare / "bin" / program.name).write_text(f"#!{python}\n{text}")
        (bare / "bin" / program.name).chmod(0o755)
    return bare


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of modules that write a file when they run."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in HOSTILE:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(folder / 'was-run')!r}, 'a').write(__file__ + '\\n')\n")
    return folder


@pytest.fixture(scope="module")
def run(bare: Path, hostile: Path) -> Path:
    """A small run by `fedperfit simulate` from there."""
    folder = hostile.parent / "run"
    values = [part for value in SMALL for part in ("--set", value)]
    command = [str(bare / "bin" / "fedperfit"), "simulate", "--run-dir", str(folder), *values]
    done = inside(bare, hostile, command)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_only_import_name_is_fedperfit(bare: Path) -> None:
    (record,) = bare.glob("lib/python*/site-packages/fedperfit-*.dist-info/RECORD")
    names = {line.split(",")[0].split("/")[0] for line in record.read_text().splitlines()}
    assert names == {"fedperfit", record.parent.name, ".."}, "`..` holds the programs"
    files = [line.split(",")[0] for line in record.read_text().splitlines()]
    assert "fedperfit/protocol/schema/bridge.proto" in files
    assert "fedperfit/configs/quickstart.toml" in files
    assert "fedperfit/configs/tasks/LaMP_7.toml" in files
    assert "fedperfit/configs/bases/LaMP_2M.basis" in files


def test_a_simulation_runs_nothing_of_the_current_folder(run: Path, hostile: Path) -> None:
    assert (run / "report.html").exists()
    assert not (hostile / "was-run").exists()


SCRIPT = """
import fedperfit
base = fedperfit.load("embedded", device="cpu")
task = fedperfit.task_by_name("LaMP_2M")
shape = fedperfit.ShiftShape(
    layers=(3,), rank=2, hidden_size=base.card.hidden_size, positions=fedperfit.Positions.parse("l7")
)
ada = fedperfit.History("ada", task, [{"description": "a robot dreams", "tag": "sci-fi"}] * 4)
shift, done = fedperfit.fit_personal_shift(base, ada, shape)
(answer,) = fedperfit.answer_questions(base, task, [task.instruction + "a robot dreams"], [shift])
print(fedperfit.__file__, done.items, answer, sep="\\n")
"""


def test_a_script_uses_the_api_of_the_wheel(bare: Path, hostile: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = inside(bare, hostile, [str(bare / "bin" / "python"), str(script)])
    assert done.returncode == 0, done.stderr
    place, items, answer = done.stdout.splitlines()
    assert Path(place).is_relative_to(bare)
    assert items == "4"
    assert answer in task_by_name("LaMP_2M").labels
    assert not (hostile / "was-run").exists()


def test_an_edge_joins_and_runs_nothing_of_the_current_folder(
    bare: Path, hostile: Path, run: Path, tmp_path: Path
) -> None:
    signing = SigningKey()
    bundle = Bundle(
        name="ada",
        address="127.0.0.1:1",
        authority=new_authority("nobody").certificate.decode(),
        token="0" * 64,
        release_key=signing.public,
        task="LaMP_2M",
        base_model="embedded",
        fingerprint=read_card("embedded").fingerprint,
        policy=json.dumps(sign_policy(policy(), signing)),
    )
    bundle.write(tmp_path / "ada.bundle")
    history = next((run / "clients").glob("*/history.jsonl"))
    home = Home(tmp_path / "ada")
    joining = {"questions": None, "base_model": "", "shares_metrics": False, "key": "file", "device": "cpu"}
    settle(bundle, home, history=history, **joining)
    NodeKey().write(home.node_key)
    home.enrolment.write_text(identify_bundle(tmp_path / "ada.bundle")[1])  # as if a cloud had registered it
    command = [str(bare / "bin" / "fedperfit-edge"), "join", str(tmp_path / "ada.bundle")]
    command += ["--agree", "--unconfined", "--folder", str(tmp_path / "ada"), "--history", str(history)]
    process = subprocess.Popen(
        command, cwd=hostile, env=programs(bare), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        said = ""
        while "joined as ada" not in said and (line := process.stdout.readline()):
            said += line
        assert "joined as ada" in said, said
        agent, *_ = psutil.Process(process.pid).children()
        assert agent.environ().items() >= SAFE_PATH.items()
        assert Path(agent.cmdline()[0]).is_relative_to(bare)
        log = tmp_path / "ada" / "supernode.log"
        assert wait_until(lambda: log.exists() and log.stat().st_size > 0, 60)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert not (hostile / "was-run").exists()
