"""Every place that starts a process, and that none of them lets the current folder shadow a module."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedperfit.protocol.system.flower import environment
from fedperfit.protocol.system.processes import SAFE_PATH, Children

ROOT = Path(__file__).parents[3]
STARTS = re.compile(
    r"(subprocess|multiprocessing|os|asyncio|ray|concurrent\.futures)\."
    r"(run|call|check_call|check_output|getoutput|getstatusoutput|Popen|Process|Pool|get_context|system|popen"
    r"|(posix_)?spawn\w*|exec[lv]\w*|fork\w*|create_subprocess_\w+|init|ProcessPoolExecutor)"
)
PLACES = {
    "protocol/system/processes.py": ["{**(os.environ if environment is None else environment), **SAFE_PATH}"],
    "protocol/system/flower.py": ["environment", "environment"],  # callers pass that of `environment()`
    "cloud/enrolment/superlink_nodes.py": ["home.environment()"],
    "protocol/sandboxes/bubblewrap.py": [None],  # bubblewrap tries `true`
    "protocol/sandboxes/lifeline.py": ["environment"],  # `os.environ | SAFE_PATH`
    "protocol/model/bounds/templates.py": ["_environment()"],  # with SAFE_PATH, and none of our own variables
    "protocol/doctor/machine.py": [None, None],  # bubblewrap tries `true`; timedatectl
    "edge/sandbox/inside.py": [None, "os.environ | SAFE_PATH"],  # `asyncio.run` starts none
    "simulation/run/runner.py": ["needed"],  # that of `environment()`
    "simulation/benchmark/origin.py": [None],  # `git`, which imports nothing
    "simulation/benchmark/parts/rounds.py": ["os.environ | SAFE_PATH"],
    "simulation/benchmark/measure.py": ["os.environ | _environment(threads) | SAFE_PATH"],
    "simulation/cluster/cluster.py": [None],  # Ray's processes inherit os.environ, see below
}
"""What the environment of each started process is, by file; None: none is given."""


def starts(tree: ast.AST) -> Iterator[str | None]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and re.fullmatch(
            r"subprocess|multiprocessing|concurrent\.futures|ray", node.module or ""
        ):
            yield from (name.name for name in node.names if STARTS.fullmatch(f"{node.module}.{name.name}"))
        if isinstance(node, ast.Call) and STARTS.fullmatch(ast.unparse(node.func)):
            yield next((ast.unparse(k.value) for k in node.keywords if k.arg == "env"), None)


def test_every_process_is_started_at_a_known_place_with_a_known_environment() -> None:
    found = {}
    for part in ("cloud", "edge", "protocol", "simulation", "configs"):
        for path in (ROOT / part).rglob("*.py"):
            if places := list(starts(ast.parse(path.read_text()))):
                found[path.relative_to(ROOT).as_posix()] = places
    assert found == PLACES


def test_workers_inherit_a_safe_environment() -> None:
    tree = ast.parse((ROOT / "simulation/cluster/cluster.py").read_text())
    changed = [ast.unparse(node.value) for node in ast.walk(tree) if isinstance(node, ast.AugAssign)]
    assert "QUIET | ALLOCATOR | SAFE_PATH | EQUAL" in changed


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.Popen(['x'])",
        "from subprocess import run",
        "os.execv('x', [])",
        "multiprocessing.get_context('fork')",
        "from concurrent.futures import ProcessPoolExecutor",
    ],
)
def test_a_new_place_is_seen(source: str) -> None:
    assert list(starts(ast.parse(source)))


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose module `intruder` leaves a file when it is imported."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    (folder / "intruder.py").write_text("open('was-run', 'w')\n")
    return folder


@pytest.mark.parametrize("given", [None, {}, {"PYTHONSAFEPATH": ""}])
def test_a_child_imports_nothing_from_its_folder(hostile: Path, given: dict[str, str] | None) -> None:
    with Children() as children:
        command = [sys.executable, "-m", "intruder"]
        child = children.start("x", command, log=hostile / "log", environment=given, folder=hostile)
        assert child.process.wait(60) == 1
    assert "No module named intruder" in (hostile / "log").read_text()
    assert not (hostile / "was-run").exists()


def test_nor_does_a_program_of_flowers(hostile: Path) -> None:
    command = [sys.executable, "-c", "import intruder"]
    safe = environment(hostile / "home", **dict.fromkeys(SAFE_PATH, ""))
    assert subprocess.run(command, env=safe, cwd=hostile, capture_output=True, check=False).returncode == 1
    assert not (hostile / "was-run").exists()


def test_the_last_words_of_a_child_are_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Children() as children:
        for code, words in (("echo one; echo 'error: two'", "two"), ("exit 1", f"see {log}")):
            child = children.start("child", ["sh", "-c", code], log=log)
            child.process.wait()
            assert child.last_words() == words
