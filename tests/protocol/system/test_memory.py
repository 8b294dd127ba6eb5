"""The bound on memory, from inside a process that has it and from one that such a process starts."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fedperfit.protocol.system.memory import limit_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds what a process allocates")
ALLOCATE = """
import resource, sys
print(resource.getrlimit(resource.RLIMIT_DATA)[0])
try:
    bytearray(int(sys.argv[1]))
    print("allocated")
except MemoryError:
    print("refused")
"""
STARTED = """
import sys
from pathlib import Path
from fedperfit.protocol.system.memory import limit_memory
from fedperfit.protocol.system.processes import Children
limit_memory(float(sys.argv[1]))
with Children() as children:
    child = children.start("child", sys.argv[3:], log=Path(sys.argv[2]) / "log")
    child.process.wait(60)
"""


def told(folder: Path, gib: float, mib: int) -> list[str]:
    """What a program says that a bounded process starts, as `join` and `up` start theirs."""
    child = [sys.executable, "-c", ALLOCATE, str(mib << 20)]
    command = [sys.executable, "-P", "-c", STARTED, str(gib), str(folder), *child]
    subprocess.run(command, check=True, timeout=120)
    return (folder / "log").read_text().split()


@pytest.mark.parametrize(("mib", "said"), [(64, "allocated"), (600, "refused")])
def test_what_a_bounded_process_starts_allocates_up_to_the_bound(tmp_path: Path, mib: int, said: str):
    assert told(tmp_path, 0.5, mib) == [str(1 << 29), said]


def test_by_default_it_is_a_share_of_the_machines_memory_and_never_raised(tmp_path: Path):
    code = (
        "from fedperfit.protocol.system.memory import limit_memory\n"
        "print(limit_memory(0), limit_memory(1), limit_memory(2))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    share, lower, kept = map(int, done.stdout.split())
    assert share == pytest.approx(0.8 * psutil.virtual_memory().total, rel=0.01)
    assert lower == kept == 1 << 30


def test_elsewhere_nothing_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fedperfit.protocol.system.memory.sys.platform", "darwin")
    assert limit_memory(0.001) == 0
