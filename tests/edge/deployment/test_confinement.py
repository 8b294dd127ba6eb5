"""What confined code of the cloud's choosing can see and change; a deployed federation tests it in place."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fedperfit.edge.deployment import confinement
from fedperfit.edge.deployment.confinement import confined
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


def told(people: Path, code: str) -> str:
    ada = people / "ada"
    try:
        command = confined([sys.executable, "-c", code, str(people)], writable=[ada / "node", ada / "bridge"])
    except InputError as error:
        pytest.skip(str(error))
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return done.stdout.strip()


def test_only_what_is_given_is_there(people):
    code = """
import os, sys
people = sys.argv[1]
print(sorted(os.listdir(people)), sorted(os.listdir(people + "/ada")))
print(open(people + "/ada/bridge/file").read())
open(people + "/ada/node/file", "w").write("new")
"""
    assert told(people, code).splitlines() == ["['ada'] ['bridge', 'node']", "ada bridge"]
    assert (people / "ada" / "node" / "file").read_text() == "new"
    assert (people / "ada" / "vault" / "file").read_text() == "ada vault"


def test_nothing_else_can_be_changed(people):
    """Neither homes, nor the programs a person runs later, nor what is outside under any name."""
    home = Path.home()
    planted = f"planted-{os.getpid()}"
    code = f"""
import os, sys, sysconfig
people, home = sys.argv[1], {str(home)!r}
places = [people, people + "/ben", people + "/ben/vault", home, "/tmp", "/var/tmp", "/usr/local", "/etc", "/",
          "/dev/shm", sys.prefix, sys.base_prefix, sysconfig.get_path("purelib")]
for place in places:
    try:
        os.makedirs(place, exist_ok=True)
        with open(place + "/{planted}", "w") as file:
            file.write("x")
    except OSError:
        pass
"""
    told(people, code)
    places = [
        people,
        people / "ben",
        people / "ben" / "vault",
        home,
        "/tmp",
        "/var/tmp",
        "/usr/local",
        "/etc",
    ]
    places += ["/", "/dev/shm", sys.prefix, sys.base_prefix, str(Path(os.__file__).parent)]
    assert [place for place in places if (Path(place) / planted).exists()] == []
    assert sorted(os.listdir(people / "ben" / "vault")) == ["file"]


def test_there_is_no_way_back(people):
    """Neither by unmounting or remounting, nor in further namespaces, nor through the processes outside."""
    code = """
import ctypes, os, subprocess, sys
people = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
print(libc.umount2((people + "/ada/node").encode(), 2), libc.mount(None, b"/usr", None, 4096 | 32, None))
further = ["unshare", "-r", "-m", "sh", "-c", f"umount -l {people}/ada/node; ls {people}/ben/vault"]
print(subprocess.run(further, capture_output=True, text=True).stdout.split())
print([n for n in os.listdir("/proc") if n.isdigit() and os.path.exists(f"/proc/{n}/root{people}/ben/vault")])
print([line for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd"))])
"""
    first, second, third, fourth = told(people, code).splitlines()
    assert first == "-1 -1"
    assert second == "[]"
    assert third == "[]"
    assert "1" not in fourth.replace("Cap", "")


def test_the_bridge_is_reached(people):
    path = people / "ada" / "bridge" / "agent.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        code = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1] + "/ada/bridge/agent.sock")
print("connected")
"""
        assert told(people, code) == "connected"


def test_where_it_cannot_be_it_says_so(people, monkeypatch):
    monkeypatch.setattr(confinement, "_NAMESPACES", ("--no-such-option",))
    if confinement.shutil.which("bwrap"):
        with pytest.raises(InputError, match="does not let the SuperNode be confined"):
            confined(["true"], writable=[people])
    monkeypatch.setenv("PATH", str(people))
    with pytest.raises(InputError, match="bwrap is missing"):
        confined(["true"], writable=[people])
