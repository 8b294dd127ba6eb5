"""Processes that write to a vault and die, or find it taken or full."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.edge.vault.vaults import ACCOUNT, SHIFT_KEY, files, small

from fedperfit.protocol.system.errors import InputError

_WRITER = """
import sys
from pathlib import Path
from tests.edge.vault.vaults import ACCOUNT, SHIFT_KEY, small
from fedperfit.edge.vault.vault import Vault

vault = Vault(Path(sys.argv[1]))
number = int(sys.argv[2])
with vault.held():
    while True:
        number += 1
        vault.store("full", small(number), SHIFT_KEY, ACCOUNT)
        print(number, flush=True)
"""


def _child(code: str, *arguments: str) -> "subprocess.Popen[str]":
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )


_FORKING_WRITER = """
import os, sys, time, random, select, signal
from pathlib import Path
from tests.edge.vault.vaults import ACCOUNT, SHIFT_KEY, small
from fedperfit.edge.vault.vault import Vault

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
rng = random.Random(kills)
acknowledged = 0
for kill in range(kills):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        vault = Vault(folder)
        with vault.held():
            number = acknowledged
            while True:
                number += 1
                vault.store("full", small(number), SHIFT_KEY, ACCOUNT)
                os.write(write, b"%d\\n" % number)
    os.close(write)
    if rng.random() < 0.5:  # else a busy machine kills them all before their first write
        select.select([read], [], [], 10)
    time.sleep(rng.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    lines = b""
    while chunk := os.read(read, 1 << 16):
        lines += chunk
    os.close(read)
    if lines:
        acknowledged = int(lines.split()[-1])
    vault = Vault(folder)
    if vault.slots():
        kept, shift = vault.open("full")
        assert shift.b.item() in (acknowledged, acknowledged + 1), (shift.b.item(), acknowledged)
        assert kept.writes == shift.b.item()
        acknowledged = kept.writes
    else:
        assert not acknowledged
print(acknowledged)
with Vault(folder).held():
    print(*sorted(path.name for path in folder.rglob("*") if path.is_file()))
"""


def kill_writers(folder: Path, kills: int) -> list[str]:
    """Kills that many writers with -9; the lines the checking process printed."""
    child = _child(_FORKING_WRITER, str(folder), str(kills))
    try:
        out, _ = child.communicate(timeout=300)
    finally:
        child.kill()
    assert child.returncode == 0
    return out.splitlines()


def test_kill_9_during_writes_loses_no_acknowledged_version(tmp_path):
    acknowledged, left = kill_writers(tmp_path / "vault", int(os.environ.get("FEDPERFIT_KILLS", "100")))
    assert int(acknowledged) > 10
    assert left.split() == [".lock", "full.sealed", "vault.key"]


def test_a_second_process_is_refused_and_a_stale_lock_is_not(vault):
    child = _child(_WRITER, str(vault.folder), "0")
    try:
        assert child.stdout is not None
        child.stdout.readline()
        started = time.monotonic()
        with pytest.raises(InputError, match="another process is using"):
            vault.store("full", small(), SHIFT_KEY, ACCOUNT)
        waited = time.monotonic() - started
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert waited < 30  # within a second on an idle machine; the limit only catches a lock waited for
    assert (vault.folder / ".lock").exists()
    vault.store("full", small(7), SHIFT_KEY, ACCOUNT)
    assert vault.load("full", SHIFT_KEY).b.item() == 7


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tests.edge.vault.vaults import ACCOUNT, SHIFT_KEY, small
from fedperfit.edge.vault.vault import Vault

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
    Vault(Path(sys.argv[1])).store("full", small(9), SHIFT_KEY, ACCOUNT)
except OSError as error:
    print(type(error).__name__)
"""


def test_a_full_disk_leaves_the_old_version_and_no_litter(vault):
    before = files(vault)
    child = _child(_FULL_DISK, str(vault.folder))
    try:
        out, _ = child.communicate(timeout=120)
    finally:
        child.kill()
    assert out == "OSError\n"
    assert files(vault) == before
    assert vault.load("full", SHIFT_KEY).b.item() == 1
