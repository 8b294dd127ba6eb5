"""Contracts hold for this repository, and each is reported when a copy of it breaks it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tools.docstrings import count
from tools.imports import read_tree
from tools.structure import CONTRACTS, broken, circles, crowded, report, upward

ROOT = Path(__file__).parents[2]
CONTRACT_BREAKERS = {
    "cloud never reaches edge": ("cloud/rounds/aggregation.py", "import fedperfit.edge.records"),
    "edge never reaches cloud": (
        "edge/vault/keys.py",
        "def late() -> None:\n    from fedperfit.cloud.rounds import robust",
    ),
    "protocol reaches neither": ("protocol/tasks/task.py", "from fedperfit import edge"),
    "nothing reaches simulation": ("cloud/job/job.py", "from fedperfit.simulation.memory import bytes_of"),
    "the engine knows no vault, agent, deployment": (
        "edge/engine/step.py",
        "from ..vault.vault import Vault",
    ),
    "what talks to the cloud reaches no torch, engine, agent, vault": (
        "protocol/messages/keys.py",
        "def late() -> None:\n    import torch.nn",
    ),
}
"""For each contract a file and the lines that break it there."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Sources of this repository without data, behind links like here."""
    keep_code = shutil.ignore_patterns("*.safetensors", "*.json", "__pycache__")
    for name in ("cloud", "configs", "edge", "protocol", "simulation", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=keep_code)
    return tmp_path


def append(path: Path, lines: str) -> None:
    path.write_text(f"{path.read_text()}\n{lines}\n")


def test_this_repository_keeps_its_structure():
    lines, faults = report(ROOT)
    assert faults == []
    assert {"upward arrows: 0", "circles: 0"} <= set(lines)
    assert all(f"{contract.text}: holds" in lines for contract in CONTRACTS)


@pytest.mark.parametrize("contract", [contract.text for contract in CONTRACTS])
def test_a_broken_contract_is_told_with_its_chain(copy: Path, contract: str):
    name, lines = CONTRACT_BREAKERS[contract]
    append(copy / name, lines)
    chain = broken(read_tree(copy))[contract]
    assert f"fedperfit.{name.removesuffix('.py').replace('/', '.')} -> " in chain


def test_every_library_and_package_that_a_contract_names_is_guarded(copy: Path):
    for target in ("fedperfit.edge.engine", "fedperfit.edge.agent.agent", "fedperfit.edge.vault.keys"):
        append(copy / "edge/records.py", f"import {target}")
        assert CONTRACTS[-1].text in broken(read_tree(copy))
        shutil.copy(ROOT / "edge/records.py", copy / "edge/records.py")
    append(copy / "edge/__init__.py", "import transformers")  # runs before the ClientApp's first line
    assert CONTRACTS[-1].text in broken(read_tree(copy))


def test_imports_for_type_checking_alone_load_nothing(copy: Path):
    append(
        copy / "protocol/messages/keys.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
    )
    assert broken(read_tree(copy)) == {}


def test_arrows_upwards_and_sideways_and_homeless_rooms_are_told(copy: Path):
    append(copy / "edge/vault/keys.py", "import fedperfit.edge.agent.history")
    append(copy / "protocol/settings/base.py", "import fedperfit.protocol.trust.signing")
    (copy / "edge/cellar.py").write_text("import fedperfit.edge.cli")
    assert upward(read_tree(copy)) == [
        "edge/cellar: on no floor, give it one in tools/structure.py",
        "edge/vault -> edge/agent",
        "protocol/settings -> protocol/trust",
    ]


def test_a_circle_of_modules_is_told(copy: Path):
    append(copy / "cloud/rounds/aggregation.py", "from fedperfit.cloud.rounds import robust")
    (circle,) = circles(read_tree(copy))
    assert "fedperfit.cloud.rounds.robust" in circle


def test_a_crowded_folder_is_told(copy: Path):
    for number in range(15):
        (copy / f"cloud/cli/command_{number:02}.py").touch()
    (largest, size), faults = crowded(copy)
    assert largest == "cloud/cli"
    assert faults == [f"cloud/cli: {size} Python files"]


def test_documented_functions_and_short_docstrings_are_counted(tmp_path: Path):
    source = tmp_path / "code.py"
    source.write_text(
        '''"""Module of a test."""
RATE = 0.1
"""Two words."""

def documented(a: int, b: int) -> None:
    """Add two numbers together.

    Args:
        a: the first.
    """

def undocumented(a: int, b: int) -> None:
    """Short one."""

def command(a: Annotated[int, typer.Option(help="The first.")], b: Annotated[str, typer.Option()]) -> None:
    """Run what was asked for."""

def one(a: int) -> None:
    """Take only one parameter."""

class Point:
    """A point of the plane.

    Args:
        x: metres to the right.
    """

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y

    def _hidden(self, a: int, b: int) -> None:
        """Short."""
'''
    )
    counted = count([source], tmp_path)
    assert (counted.functions, counted.documented) == (4, 3)
    assert counted.short == ("code.py:3", "code.py:13")


def test_the_command_fails_in_lines_not_in_a_traceback(copy: Path):
    append(copy / "cloud/rounds/robust.py", "import fedperfit.edge.records")
    command = [sys.executable, "-m", "tools.structure", str(copy)]
    failed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "cloud never reaches edge: fedperfit.cloud.rounds.robust -> fedperfit.edge" in failed.stderr
    command[-1] = str(copy / "nowhere")
    missing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert missing.returncode == 1
    assert missing.stderr == f"{copy}/nowhere/src/fedperfit: no such package\n"
