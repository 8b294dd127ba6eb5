"""What confined code of the cloud's choosing can see; a deployed federation tests it in place."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge.confinement import confined
from protocol.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("bridge", "node", "owner", "vault"):
        (tmp_path / "home" / name).mkdir(parents=True)
        (tmp_path / "home" / name / "file").write_text(name)
    (tmp_path / "history.jsonl").write_text("private")
    return tmp_path


def told(folder: Path, code: str) -> str:
    home = folder / "home"
    hidden = [folder / "history.jsonl"]
    try:
        command = confined(
            [sys.executable, "-c", code, str(folder)],
            home,
            seen=["bridge", "node"],
            hidden=hidden,
            empty=home / "node" / "empty",
        )
    except InputError as error:
        pytest.skip(str(error))
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return done.stdout.strip()


def test_only_what_is_needed_is_there(folder):
    listing = "import os,sys; print(sorted(os.listdir(sys.argv[1] + '/home')))"
    assert told(folder, listing) == "['bridge', 'node']"
    assert told(folder, "import sys; print(open(sys.argv[1] + '/history.jsonl').read())") == ""
    read = "import sys; print(open(sys.argv[1] + '/home/bridge/file').read())"
    assert told(folder, read) == "bridge"
    write = "import sys; open(sys.argv[1] + '/home/node/file', 'w').write('new')"
    told(folder, write)
    assert (folder / "home" / "node" / "file").read_text() == "new"
    assert (folder / "history.jsonl").read_text() == "private"
    assert (folder / "home" / "vault" / "file").read_text() == "vault"


def test_there_is_no_way_back(folder):
    """Neither by unmounting, nor in further namespaces, nor through the processes outside."""
    code = """
import ctypes, os, subprocess, sys
home = sys.argv[1] + "/home"
libc = ctypes.CDLL(None, use_errno=True)
print(libc.umount2(home.encode(), 2))
further = ["unshare", "-r", "-m", "sh", "-c", f"umount -l {home}; ls {home}"]
print(subprocess.run(further, capture_output=True, text=True).stdout.split())
print([n for n in os.listdir("/proc") if n.isdigit() and os.path.exists(f"/proc/{n}/root{home}/vault")])
"""
    first, second, third = told(folder, code).splitlines()
    assert first == "-1"
    assert second in ("['bridge', 'node']", "[]")
    assert third == "[]"


def test_where_it_cannot_be_it_says_so(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(InputError, match="cannot be confined"):
        confined(["true"], folder, seen=[], hidden=[], empty=folder / "empty")
