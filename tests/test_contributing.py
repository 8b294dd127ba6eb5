"""What CONTRIBUTING.md tells contributors to do is done here, on a copy of the sources."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "CONTRIBUTING.md"
COUNTING = (
    *("simulation/compare/test_registry.py", "simulation/benchmark/test_workload.py"),
    *("cloud/rounds/test_robust_rounds.py", "cloud/rounds/test_coordinate_rounds.py"),
)
"""Tests that go through all methods, tasks, attacks or rules, and so meet those that are added."""
STEPS = """
import torch
from fedperfit.cloud.rounds.robust import robust
from fedperfit.protocol.shift.packing import ShiftHeader, pack, unpack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.tasks import PromptForm, task_by_name
from fedperfit.simulation.compare.method import registry
from fedperfit.simulation.run.faults import ATTACKS, attacked
from fedperfit.simulation.run.settings import RunSettings

task = task_by_name("Urgency")
pair = task.item_pair({"mail": "Fire!", "urgency": "now"}, PromptForm.OPPU)
assert (pair.prompt, pair.target) == (task.instruction + "Fire! urgency:", " now")
assert (task.parse(" later"), task.parse("never")) == ("later", None)

assert registry()["echo"].title == "latest answer of the user"

settings = RunSettings.read("quickstart", {"attack": "idle", "aggregation": "winsorized-mean"})
assert (settings.attack, "idle" in ATTACKS) == ("idle", True)
shape = ShiftShape(hidden_size=16, layers=(0, 1), rank=2, positions=Positions.parse("l1"))
before = Shift.identity(shape, seed=0)
after = Shift(shape, R=before.R, W=before.W + 0.5, b=before.b + 1)
header = ShiftHeader(shape, "Urgency", "0" * 64, round=0)
idle, _ = unpack(attacked("idle", pack(before, header), pack(after, header)))
assert torch.equal(idle.W, before.W) and torch.equal(idle.b, before.b)

liar = Shift(shape, R=before.R, W=before.W + 100, b=before.b + 100)
for share, updates in ((0.2, [after] * 4 + [liar]), (0.4, [after] * 3 + [liar] * 2)):
    agreed = robust("winsorized-mean", updates, share, before)
    assert torch.allclose(agreed.W, after.W, atol=1e-5) and torch.allclose(agreed.b, after.b, atol=1e-5)
"""


def carry_out(guide: str, root: Path) -> list[str]:
    """Make the new files and the edits of the guide, and tell which files they touch."""
    touched = []
    for name, text in re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", guide, re.S):
        (root / name).write_text(text)
        touched.append(name)
    for block in re.findall(r"```diff\n(.*?)```", guide, re.S):
        for name, lines in re.findall(r"^--- (\S+)\n((?:[ +-].*\n)+?)(?=--- |\Z)", block, re.M):
            rows = lines.splitlines()
            old, new = ("".join(f"{row[1:]}\n" for row in rows if row[0] != sign) for sign in "+-")
            source = (root / name).read_text()
            assert source.count(old) == 1, f"{name} has not once:\n{old}"
            (root / name).write_text(source.replace(old, new))
            touched.append(name)
    return touched


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("cloud", "configs", "edge", "protocol", "simulation", "src", "docs", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_a_task_a_method_an_attack_and_a_rule_are_added_as_the_guide_says(copy: Path):
    touched = carry_out(GUIDE.read_text(), copy)
    assert len(touched) == 6
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", STEPS], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    code = [name for name in touched if name.endswith(".py")]
    for command in (["check"], ["format", "--check", "--diff"]):
        checked = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", *code],
            cwd=copy,
            capture_output=True,
            text=True,
        )
        assert checked.returncode == 0, checked.stdout
    counted = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow"),
            *(f"tests/{name}" for name in COUNTING),
        ],
        cwd=copy,
        env={key: value for key, value in environment.items() if not key.startswith("PYTEST_")},
        capture_output=True,
        text=True,
    )
    assert counted.returncode == 0, counted.stdout[-4000:]
    assert "passed" in counted.stdout


def test_files_and_folders_that_the_guide_names_are_there():
    made = {"simulation/compare/methods/echo.py", "configs/tasks/Urgency.toml"}
    named = set(
        re.findall(r"`((?:cloud|configs|edge|protocol|simulation|tests|tools)/[^`\s]*)`", GUIDE.read_text())
    )
    assert [name for name in named - made if not (ROOT / name).exists()] == []
    links = re.findall(r"\]\(([^)\s]+)\)", GUIDE.read_text() + (ROOT / "CHANGELOG.md").read_text())
    assert [link for link in links if "://" not in link and not (ROOT / link).is_file()] == []


def test_one_version_stands_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.findall(r"^## \[(\d[^]]*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[0]
    citation = (ROOT / "CITATION.cff").read_text()
    assert newest[0] == version
    assert f"\nversion: {version}\n" in citation
    assert f"\ndate-released: {newest[1]}\n" in citation


def test_slow_tests_are_there_and_every_room_keeps_fast_ones():
    from tests.conftest import SLOW

    files = {name.partition("::")[0] for name in SLOW if "::" not in name}
    for name in SLOW:
        path, _, function = name.partition("::")
        assert f"def {function}" in (ROOT / "tests" / path).read_text(), name
    rooms = {path.parent for path in (ROOT / "tests").glob("*/*/test_*.py")}
    bare = [
        room.relative_to(ROOT / "tests").as_posix()
        for room in rooms
        if all(path.relative_to(ROOT / "tests").as_posix() in files for path in room.glob("test_*.py"))
    ]
    assert bare == []
