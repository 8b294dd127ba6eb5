"""What is written in the sandbox is not executed; outside the same is, and what is there before is too."""

from pathlib import Path

import pytest
from tests.edge.deployment.sandboxes import inside, outside

WRITTEN = """
import os, subprocess, sys
for folder in sys.argv[1:]:
    for name, content in (("program", open("/usr/bin/true", "rb").read()), ("script", b"#!/bin/sh\\n")):
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o700)
        try:
            subprocess.run([path], check=True)
            print("ran", name)
        except PermissionError:
            print("refused", name)
"""
LANDLOCK = """
import ctypes
print(ctypes.CDLL(None, use_errno=True).syscall(444, 0, 0, 1) > 0)
"""


@pytest.fixture(scope="module", autouse=True)
def landlock() -> None:
    if outside(LANDLOCK) != "True":
        pytest.skip("this kernel has no Landlock")


def test_guard_off_what_is_written_is_executed(tmp_path: Path) -> None:
    assert outside(WRITTEN, tmp_path).split() == ["ran", "program", "ran", "script"]


def test_what_is_written_is_not_executed() -> None:
    said = inside(WRITTEN, "/tmp", "/home/edge", shown={}).split()
    assert said == ["refused", "program", "refused", "script"] * 2


IN_MEMORY = """
import os, subprocess
try:
    file = os.memfd_create("program")
    os.write(file, open("/usr/bin/true", "rb").read())
    subprocess.run([f"/proc/self/fd/{file}"], pass_fds=[file], check=True)
    print("ran")
except PermissionError:
    print("refused")
"""


def test_what_is_in_no_folder_is_not_executed() -> None:
    """A file in memory is beyond Landlock's rule; none can be made."""
    assert (outside(IN_MEMORY), inside(IN_MEMORY, shown={})) == ("ran", "refused")


def test_what_was_there_is_executed(tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.mkdir()
    (node / "program").write_text("#!/bin/sh\necho here\n")
    (node / "program").chmod(0o700)
    code = "import subprocess; subprocess.run(['/edge/node/program'], check=True)"
    assert inside(code, shown={"node": node}) == "here"


CHANGED = """
import os, subprocess, sys
from pathlib import Path
from fedperfit.edge.sandbox.execution import refuse_execution
root = Path(sys.argv[1])
print(refuse_execution([root / "deep" / "scratch"], Path("/")))
for name in ("deep/scratch/late", "deep/early"):
    (root / name).write_text("#!/bin/sh\\n")
    (root / name).chmod(0o700)
    try:
        subprocess.run([root / name], check=True)
        print("ran")
    except PermissionError:
        print("refused")
"""


def test_beside_a_scratch_folder_things_new_and_old_differ(tmp_path: Path) -> None:
    (tmp_path / "deep" / "scratch").mkdir(parents=True)
    (tmp_path / "deep" / "early").touch()
    assert outside(CHANGED, tmp_path).split() == ["True", "refused", "ran"]
