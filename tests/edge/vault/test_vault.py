"""The vault: sealed, replaced whole or not at all, kept by one process, and gone when forgotten."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import keyring
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from keyring.backend import KeyringBackend
from tests.fuzzing import FUZZED

from fedperfit.edge.vault.keys import FileKey, KeyringKey, PassphraseKey
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.vault.sealed import seal, unseal
from fedperfit.edge.vault.vault import FitRecord, ShiftKey, Vault
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.system.errors import InputError

SHIFT_KEY = ShiftKey(task="LaMP_2M", fingerprint="f", release="r", additive=False)
SHAPE = ShiftShape(layers=(1,), rank=1, hidden_size=3, positions=Positions.parse("l7"))
ACCOUNT = FitRecord(items=3)


def small(seed: int = 1) -> PersonalShift:
    shift = PersonalShift.start(SHAPE, seed=seed)
    with torch.no_grad():
        shift.b.fill_(seed)
    return shift


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    vault = Vault(tmp_path / "vault")
    vault.store("full", small(), SHIFT_KEY, ACCOUNT)
    return vault


def sealed_file(vault: Vault) -> Path:
    return vault.folder / "shifts" / "full.sealed"


def files(vault: Vault) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in sorted(vault.folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_round_trip(vault):
    kept, shift = Vault(vault.folder).open("full")
    assert torch.equal(shift.W, small().W)
    assert (kept.shape, kept.shift_key, kept.writes) == (SHAPE, SHIFT_KEY, 1)
    assert kept.fit_record.items == 3
    vault.store("full", small(2), SHIFT_KEY, ACCOUNT)
    assert vault.open("full")[0].writes == 2
    assert vault.load("full", SHIFT_KEY).b.item() == 2


def test_nothing_is_in_clear_and_nobody_else_can_read(vault):
    vault.learn([{"text": "a very private sentence", "title": "t"}])
    R = small().R.detach()
    for path, data in files(vault).items():
        assert b"private" not in data
        assert R.numpy().tobytes() not in data
        assert R.bfloat16().view(torch.uint8).numpy().tobytes() not in data
        assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0
    assert stat.S_IMODE(vault.folder.stat().st_mode) == 0o700


def test_every_bit_flip_and_every_truncation_is_refused(vault):
    path = sealed_file(vault)
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(InputError):
            vault.load("full", SHIFT_KEY)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            vault.load("full", SHIFT_KEY)
    path.write_bytes(data)
    assert vault.load("full", SHIFT_KEY)


@FUZZED
@given(data=st.data())
def test_fuzzed_files_are_a_typed_error(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    vault = Vault(folder)
    path = sealed_file(vault)
    if not (folder / "vault.key").exists():
        vault.store("full", small(), SHIFT_KEY, ACCOUNT)
        (folder / "good").write_bytes(path.read_bytes())
    good = (folder / "good").read_bytes()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, len(good)))
    mutated = good[:start] + data.draw(st.binary(max_size=64)) + good[end:]
    path.write_bytes(mutated)
    before = files(vault)
    if mutated != good:
        with pytest.raises(InputError) as caught:
            vault.load("full", SHIFT_KEY)
        assert "\n" not in str(caught.value)
    assert files(vault) == before


@given(header=st.dictionaries(st.text(), st.text() | st.integers()), content=st.binary())
def test_what_is_sealed_is_unsealed(header, content):
    assert unseal(seal(header, content, b"k" * 32), b"k" * 32) == (header, content)


@pytest.mark.parametrize(
    "other",
    [
        ShiftKey("LaMP_3", "f", "r", False),
        ShiftKey("LaMP_2M", "g", "r", False),
        ShiftKey("LaMP_2M", "f", "s", False),
        ShiftKey("LaMP_2M", "f", "r", True),
    ],
)
def test_a_shift_made_for_something_else_is_refused(vault, other):
    with pytest.raises(InputError, match="belongs to another"):
        vault.load("full", other)


@pytest.mark.parametrize("other", [ShiftKey("LaMP_3", "f", "r", False), ShiftKey("LaMP_2M", "g", "r", False)])
def test_a_shift_of_another_task_or_model_is_not_overwritten(vault, other):
    before = files(vault)
    with pytest.raises(InputError, match="forget it first"):
        vault.store("full", small(), other, ACCOUNT)
    assert files(vault) == before


def test_a_broken_shift_is_not_overwritten(vault):
    sealed_file(vault).write_bytes(sealed_file(vault).read_bytes()[:-1])
    before = files(vault)
    with pytest.raises(InputError, match="changed, truncated"):
        vault.store("full", small(), SHIFT_KEY, ACCOUNT)
    assert files(vault) == before


def test_a_shift_in_another_slot_or_vault_is_refused(vault, tmp_path):
    other = Vault(tmp_path / "other")
    other.store("full", small(), SHIFT_KEY, ACCOUNT)
    for target, match in (
        (sealed_file(other), "does not have"),
        (vault.folder / "shifts/b.sealed", "slot 'b'"),
    ):
        target.write_bytes(sealed_file(vault).read_bytes())
        owner = other if target.is_relative_to(other.folder) else vault
        with pytest.raises(InputError, match=match):
            owner.load(target.stem, SHIFT_KEY)


class _Ring(KeyringBackend):
    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def ring():
    before = keyring.get_keyring()
    ring = _Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


KEEPERS = {"file": FileKey, "passphrase": lambda: PassphraseKey("open sesame"), "keyring": KeyringKey}


@pytest.mark.parametrize("before", KEEPERS)
@pytest.mark.parametrize("after", KEEPERS)
def test_rotation_reseals_everything(tmp_path, ring, before, after):
    vault = Vault(tmp_path / "vault", KEEPERS[before]())
    vault.store("full", small(), SHIFT_KEY, ACCOUNT)
    vault.learn([{"a": "1"}])
    old = files(vault)
    vault.rotate(KEEPERS[after]())
    again = Vault(tmp_path / "vault", KEEPERS[after]())
    assert torch.equal(again.load("full", SHIFT_KEY).R, small().R)
    assert again.learned() == [{"a": "1"}]
    assert not {path for path, data in files(vault).items() if data == old[path]}
    assert len(ring.kept) == (after == "keyring")
    if before != after:
        with pytest.raises(InputError, match="kept by"):
            Vault(tmp_path / "vault", KEEPERS[before]()).load("full", SHIFT_KEY)


@pytest.mark.parametrize("writes", range(4))
def test_a_rotation_killed_after_any_write_is_finished(vault, monkeypatch, writes):
    vault.learn([{"a": "1"}])
    left = writes

    def write(
        path: Path, data: bytes, real=sys.modules["fedperfit.protocol.system.files"].write_atomic
    ) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        real(path, data)

    for module in ("fedperfit.edge.vault.vault", "fedperfit.edge.vault.vault_key"):
        monkeypatch.setattr(f"{module}.write_atomic", write)
    with pytest.raises(KeyboardInterrupt):
        vault.rotate(FileKey())
    monkeypatch.undo()
    again = Vault(vault.folder)
    with again.held():
        assert again.load("full", SHIFT_KEY).b.item() == 1
        assert again.learned() == [{"a": "1"}]
        assert b"retiring" not in (vault.folder / "vault.key").read_bytes()


def test_a_wrong_passphrase_is_one_line(tmp_path):
    Vault(tmp_path, PassphraseKey("right")).store("full", small(), SHIFT_KEY, ACCOUNT)
    with pytest.raises(InputError, match="passphrase does not open"):
        Vault(tmp_path, PassphraseKey("wrong")).load("full", SHIFT_KEY)
    assert Vault(tmp_path, PassphraseKey("right")).load("full", SHIFT_KEY)


def test_a_key_that_others_can_read_is_refused(vault):
    (vault.folder / "vault.key").chmod(0o644)
    with pytest.raises(InputError, match="others may read it"):
        vault.load("full", SHIFT_KEY)


def test_forget_leaves_nothing(vault):
    vault.learn([{"a": "1"}])
    assert vault.forget() == (1, 1, 0)
    assert files(vault) == {}
    assert vault.learned() == []
    with pytest.raises(InputError, match="personalize first"):
        vault.load("full", SHIFT_KEY)
    vault.store("full", small(), SHIFT_KEY, ACCOUNT)
    assert vault.load("full", SHIFT_KEY)


def test_forget_works_without_the_passphrase(tmp_path):
    Vault(tmp_path, PassphraseKey("lost")).store("full", small(), SHIFT_KEY, ACCOUNT)
    assert Vault(tmp_path, FileKey()).forget()[0] == 1
    assert Vault(tmp_path).slots() == []


def test_without_its_key_a_vault_is_closed(vault):
    (vault.folder / "vault.key").unlink()
    for attempt in (
        lambda: vault.load("full", SHIFT_KEY),
        lambda: vault.store("b", small(), SHIFT_KEY, ACCOUNT),
    ):
        with pytest.raises(InputError, match="key is gone"):
            attempt()


# Processes that die.

_WRITER = """
import sys
from pathlib import Path
from tests.edge.vault.test_vault import ACCOUNT, SHIFT_KEY, small
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
from tests.edge.vault.test_vault import ACCOUNT, SHIFT_KEY, small
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
from tests.edge.vault.test_vault import ACCOUNT, SHIFT_KEY, small
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
