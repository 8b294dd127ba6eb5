import copy
import io
import pickle

import pytest
import safetensors.torch
import torch

from fedperfit.edge.engine.slab import Slab
from fedperfit.edge.engine.training import FitJob
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.shift import Shift


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
        lambda: shift.copy(),
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


def test_a_slab_of_personal_shifts_refuses_to_leave_too(shift):
    slab = Slab.of([shift], torch.device("cpu"))
    for leave in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="do not leave the edge"):
            leave(slab)
    assert "tensor" not in repr(slab)
    assert "tensor" not in repr(FitJob(shift, [], "x"))
