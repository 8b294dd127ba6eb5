import copy
import io
import pickle

import pytest
import safetensors.torch
import torch

from edge.personal import PersonalShift
from edge.slab import Slab
from edge.training import Job
from edge.vault import Belonging, Vault
from protocol.errors import InputError
from protocol.packing import ShiftHeader, pack
from protocol.shift import Shift

BELONGING = Belonging(task="LaMP_2M", fingerprint="f", release="r", additive=False)


@pytest.fixture
def shift(shape):
    return PersonalShift.start(shape, seed=1)


def test_no_generic_way_to_serialise(shift, header: ShiftHeader, tmp_path):
    attempts = [
        lambda: pickle.dumps(shift),
        lambda: copy.deepcopy(shift),
        lambda: torch.save(shift, io.BytesIO()),
        lambda: torch.save({"shift": shift}, io.BytesIO()),
        lambda: shift.state_dict(),
        lambda: safetensors.torch.save_model(shift, str(tmp_path / "leak")),
        lambda: pack(shift, header),
    ]
    for attempt in attempts:
        with pytest.raises(TypeError):
            attempt()
    assert not (tmp_path / "leak").exists()


def test_a_collective_shift_still_can_be(shape, header: ShiftHeader):
    shift = Shift.identity(shape, seed=1)
    assert pickle.loads(pickle.dumps(shift)).shape == shape
    assert pack(shift, header)


def test_printing_shows_no_value(shift):
    with torch.no_grad():
        shift.b.fill_(0.123456)
    assert "0.123" not in f"{shift!r} {shift}"


def test_vault_round_trip(shift, tmp_path):
    vault = Vault(tmp_path / "personal")
    with torch.no_grad():
        shift.W.normal_()
    vault.store("full", shift, BELONGING)
    loaded = vault.load("full", BELONGING)
    assert isinstance(loaded, PersonalShift)
    assert loaded.shape == shift.shape
    for name in ("R", "W", "b"):
        assert torch.equal(getattr(loaded, name), getattr(shift, name))
    assert [path.name for path in (tmp_path / "personal").iterdir()] == ["full.safetensors"]
    assert (tmp_path / "personal" / "full.safetensors").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "other",
    [
        Belonging("LaMP_3", "f", "r", False),
        Belonging("LaMP_2M", "g", "r", False),
        Belonging("LaMP_2M", "f", "s", False),
        Belonging("LaMP_2M", "f", "r", True),
    ],
)
def test_vault_refuses_a_shift_made_for_something_else(shift, tmp_path, other):
    vault = Vault(tmp_path)
    vault.store("full", shift, BELONGING)
    with pytest.raises(InputError, match="belongs to another"):
        vault.load("full", other)


def test_vault_refuses_every_truncation(shift, tmp_path):
    vault = Vault(tmp_path)
    vault.store("full", shift, BELONGING)
    path = tmp_path / "full.safetensors"
    data = path.read_bytes()
    for length in [*range(0, 200), *range(200, len(data), 997), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            vault.load("full", BELONGING)


def test_a_slab_of_personal_shifts_refuses_to_leave_too(shift):
    slab = Slab.of([shift], torch.device("cpu"))
    for leave in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="do not leave the edge"):
            leave(slab)
    assert "tensor" not in repr(slab)
    assert "tensor" not in repr(Job(shift, [], "x"))


def test_missing_slot(tmp_path):
    with pytest.raises(InputError, match="personalize first"):
        Vault(tmp_path).load("full", BELONGING)
