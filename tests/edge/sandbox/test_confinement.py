"""What a program in the sandbox sees, changes and uses up; tests/attacks has what an attacker would do."""

import errno
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from tests.edge.deployment.sandboxes import inside, outside, sandboxed

from fedperfit.edge.sandbox import confinement
from fedperfit.edge.sandbox.confinement import confined
from fedperfit.edge.sandbox.inside import LIMITS
from fedperfit.protocol.system.errors import InputError


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Two people's folders under one account, and a history elsewhere."""
    for person in ("ada", "ben"):
        for name in ("bridge", "node", "owner", "vault"):
            (tmp_path / person / name).mkdir(parents=True)
            (tmp_path / person / name / "file").write_text(f"{person} {name}")
    (tmp_path / "history.jsonl").write_text("private")
    return tmp_path


@pytest.fixture
def shown(people: Path) -> dict[str, Path]:
    return {name: people / "ada" / name for name in ("node", "bridge")}


def test_only_what_is_given_is_there(people, shown):
    code = """
import os, sys
print(sorted(os.listdir("/edge")), os.path.exists(sys.argv[1]))
print(open("/edge/bridge/file").read(), "/", open("/edge/node/file").read())
print(os.listdir("/tmp") if not sys.argv[1].startswith("/tmp") else [], os.listdir("/home"))
"""
    assert inside(code, people, shown=shown).splitlines() == [
        "['bridge', 'node'] False",
        "ada bridge / ada node",
        "[] ['edge']",
    ]


@pytest.mark.parametrize("where", ["package", "python"])
def test_a_folder_among_what_is_shown_is_refused(tmp_path, monkeypatch, where):
    """A person's folder in the package's own, or in Python's, would be there whole, the vault with it."""
    place = tmp_path / where
    person = place / "ada" / "node"
    person.mkdir(parents=True)
    if where == "package":
        (place / "__init__.py").touch()
        monkeypatch.setattr(confinement.fedperfit, "__file__", str(place / "__init__.py"))
    else:
        monkeypatch.setattr(confinement.sys, "base_prefix", str(place))
    with pytest.raises(InputError, match="choose a folder elsewhere"):
        confined(["true"], shown={"node": person})


WRITE = """
import os, sys, sysconfig
places = [*sys.argv[2:], "/", "/etc", "/dev", "/dev/shm", "/edge", "/edge/node", "/edge/bridge", "/usr/local",
          "/var/tmp", "/run", sys.prefix, sys.base_prefix, sysconfig.get_path("purelib")]
for place in places:
    try:
        os.makedirs(place, exist_ok=True)
        with open(place + "/" + sys.argv[1], "w") as file:
            file.write("x")
        print(place)
    except OSError:
        pass
"""


def test_nothing_can_be_written_where_something_outside_reads(people, shown):
    planted = f"planted-{os.getpid()}"
    home = Path.home()
    places = [people, people / "ben", people / "ada" / "node", people / "ben" / "vault", home]
    # folders that the sandbox makes for itself, in memory
    own = {str(place) for place in places if place.is_relative_to("/tmp")}
    said = set(inside(WRITE, planted, *places, shown=shown).splitlines())
    assert said - own == set()
    everywhere = [
        *places,
        "/etc",
        "/",
        "/dev/shm",
        "/usr/local",
        "/var/tmp",
        "/tmp",
        Path(os.__file__).parent,
    ]
    assert [place for place in everywhere if (Path(place) / planted).exists()] == []


def test_the_same_writes_succeed_outside(tmp_path):
    assert str(tmp_path) in outside(WRITE, "planted", tmp_path).splitlines()


def test_all_that_is_mounted_writable_is_in_memory_and_small(shown):
    code = """
for line in open("/proc/self/mountinfo"):
    fields = line.split()
    if "rw" in fields[5].split(","):
        print(fields[4], fields[fields.index("-") + 1], fields[-1])
"""
    mounts = {line.split()[0]: line.split()[1:] for line in inside(code, shown=shown).splitlines()}
    devices = {path for path in mounts if path.startswith("/dev/")}
    assert set(mounts) - devices == {"/tmp", "/home/edge"}
    assert {mounts[path][0] for path in devices} <= {"devtmpfs", "devpts", "tmpfs"}
    assert "/dev/shm" not in devices
    for path in ("/tmp", "/home/edge"):
        kind, options = mounts[path]
        assert kind == "tmpfs"
        assert "size=32768k" in options.split(",")


def test_the_disk_in_memory_is_full_at_its_size(shown):
    code = """
for place in ("/tmp", "/home/edge"):
    count = 0
    try:
        for count in range(1000):
            with open(f"{place}/{count}", "wb") as file:
                file.write(bytes(1 << 20))
    except OSError as error:
        print(count, error.errno)
"""
    for line in inside(code, shown=shown).splitlines():
        count, number = map(int, line.split())
        assert count <= 32
        assert number == errno.ENOSPC


def test_there_is_no_way_back(people, shown):
    """Neither by unmounting or remounting, nor in further namespaces, nor through the processes outside."""
    code = """
import ctypes, os, subprocess, sys
people = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
remount, new_user = 4096 | 32, 0x10000000
print(libc.umount2(b"/edge/node", 2), libc.mount(None, b"/usr", None, remount, None), libc.unshare(new_user))
further = ["unshare", "-r", "-m", "sh", "-c", f"umount -l /edge/node; ls {people}/ben/vault"]
print(subprocess.run(further, capture_output=True, text=True).stdout.split())
print([n for n in os.listdir("/proc") if n.isdigit() and os.path.exists(f"/proc/{n}/root{people}/ben/vault")])
print([line for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd"))])
"""
    first, second, third, fourth = inside(code, people, shown=shown).splitlines()
    assert first == "-1 -1 -1"
    assert second == "[]"
    assert third == "[]"
    assert "1" not in fourth.replace("Cap", "")


def test_the_bridge_is_reached_though_its_folder_cannot_be_written(people, shown):
    path = people / "ada" / "bridge" / "agent.sock"
    code = """
import os, socket
with socket.socket(socket.AF_UNIX) as client:
    client.connect("/edge/bridge/agent.sock")
print("connected")
try:
    os.unlink("/edge/bridge/agent.sock")
except OSError as error:
    print(type(error).__name__)
"""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert inside(code, shown=shown).splitlines() == ["connected", "OSError"]


def test_limits_are_set_and_hold(shown):
    code = """
import os, resource, threading
print([resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_DATA", "RLIMIT_AS", "RLIMIT_NPROC",
      "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CORE")])
def refused(act):
    try:
        act()
    except (MemoryError, OSError, ValueError) as error:
        return True
    return False
print(refused(lambda: bytearray(2 << 30)))
print(refused(lambda: [os.dup(0) for _ in range(2000)]))
print(refused(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))))
"""
    first, *refused = inside(code, shown=shown).splitlines()
    assert first == str([(most, most) for most in LIMITS.values()])
    assert refused == ["True"] * 3


@pytest.mark.skipif(os.geteuid() == 0, reason="Linux does not limit root's processes")
def test_processes_are_limited(shown):
    code = """
import os, time
count = 0
try:
    for count in range(2000):
        if os.fork() == 0:
            time.sleep(600)
except OSError:
    print(count)
"""
    assert int(inside(code, shown=shown)) < 256


def test_numpy_takes_one_thread_however_many_cores_there_are(shown):
    code = """
import os
import numpy as np
np.ones((500, 500)) @ np.ones((500, 500))
print(len(os.listdir("/proc/self/task")))
"""
    assert inside(code, shown=shown) == "1"
    many = "import os; os.environ.update(OPENBLAS_NUM_THREADS='4', OMP_NUM_THREADS='4')" + code
    assert int(outside(many)) > 1 or os.cpu_count() == 1


def test_it_ends_with_the_code_of_its_command(shown):
    for code, expected in (("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)):
        assert subprocess.run(sandboxed(code, shown=shown), check=False).returncode == expected


def test_where_it_cannot_be_it_says_so(people, monkeypatch):
    monkeypatch.setattr(confinement, "_NAMESPACES", ("--no-such-option",))
    if shutil.which("bwrap"):
        with pytest.raises(InputError, match="does not let the SuperNode be confined"):
            confined(["true"], shown={})
    monkeypatch.setenv("PATH", str(people))
    with pytest.raises(InputError, match="bwrap is missing"):
        confined(["true"], shown={})
