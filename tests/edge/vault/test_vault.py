"""The vault: sealed, replaced whole or not at all, kept by one process, and gone when forgotten."""

import os
import stat
import sys
from pathlib import Path

import keyring
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from keyring.backend import KeyringBackend
from tests.edge.vault.vaults import ACCOUNT, SHAPE, SHIFT_KEY, files, small
from tests.fuzzing import FUZZED

from fedperfit.edge.vault.keys import FileKey, KeyringKey, PassphraseKey
from fedperfit.edge.vault.sealed import seal, unseal
from fedperfit.edge.vault.stored_shift import ShiftKey
from fedperfit.edge.vault.vault import Vault
from fedperfit.edge.vault.vault_key import kept_by
from fedperfit.protocol.system.errors import InputError


def sealed_file(vault: Vault) -> Path:
    return vault.folder / "shifts" / "full.sealed"


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


def test_a_forget_that_was_killed_over_the_key_is_finished_by_the_next(vault, monkeypatch):
    def killed(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fedperfit.edge.vault.vault_key.secrets.token_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            vault.forget()
    again = Vault(vault.folder)
    assert again.forget()[0] == 1
    assert files(again) == {}


def test_a_rotation_to_another_keeper_that_was_killed_locks_nobody_out(vault, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Vault, "_finish_rotation", lambda self: None)
        with vault.held():
            patched.setattr(Vault, "_finish_rotation", killed)
            with pytest.raises(KeyboardInterrupt):
                vault.rotate(PassphraseKey("new"))
    kind = kept_by(vault.folder / "vault.key", "file")
    assert kind == PassphraseKey("new").kind, "while the settings still say file"
    assert Vault(vault.folder, PassphraseKey("new")).load("full", SHIFT_KEY)
    assert Vault(vault.folder).forget()[0] == 1, "which needs no passphrase"


def test_without_its_key_a_vault_is_closed(vault):
    (vault.folder / "vault.key").unlink()
    for attempt in (
        lambda: vault.load("full", SHIFT_KEY),
        lambda: vault.store("b", small(), SHIFT_KEY, ACCOUNT),
    ):
        with pytest.raises(InputError, match="key is gone"):
            attempt()
