"""The gate's norm is that of the whole W - R; how many changes are averaged at once."""

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from fedperfit.cloud.clients.coordinate_gate import CoordinateGate
from fedperfit.cloud.clients.memory_limits import rows_at_once
from fedperfit.cloud.clients.replies import Rejected
from fedperfit.protocol.messages.keys import CONTRIBUTE_TYPE, ITEMS_KEY, ROUND_KEY, UPDATE_KEY, UPDATE_RECORD
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.coordinate_packing import Agreement, pack_update
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.system.flower_internals import identify_process

SHAPE = ShiftShape(layers=(1, 3), rank=3, hidden_size=40, positions=Positions(first=0, last=7))
BASIS = random_basis(SHAPE, 5, task="LaMP_2M", fingerprint="f" * 64, seed=0)


@pytest.mark.parametrize(("margin", "admitted"), [(1 + 1e-9, True), (1 - 1e-9, False)])
def test_an_update_is_refused_by_the_norm_of_what_it_leads_to(margin: float, admitted: bool) -> None:
    identify_process(1, node_id=1)
    draws = torch.Generator().manual_seed(0)
    start, change = (torch.randn(BASIS.numbers, generator=draws) for _ in range(2))
    agreement = Agreement(BASIS.digest, "float32", 0)
    after = Coordinates.of(BASIS, start.double() + change.double())
    norm = float((after.A @ BASIS.P.double()).norm())
    assert norm > float(after.b.norm())
    gate = CoordinateGate(
        Coordinates.of(BASIS, start), agreement, round=1, max_norm=margin * norm, max_items=9
    )
    update = ConfigRecord({UPDATE_KEY: pack_update(change, agreement, 0), ITEMS_KEY: 2, ROUND_KEY: 1})
    reply = Message(RecordDict({UPDATE_RECORD: update}), 1, CONTRIBUTE_TYPE)
    if admitted:
        assert torch.equal(gate.admit("anna", reply).change, change)
    else:
        with pytest.raises(Rejected, match="the norm of W - R is"):
            gate.admit("anna", reply)


def test_as_many_changes_are_averaged_at_once_as_are_small() -> None:
    assert [rows_at_once(numbers) for numbers in (16, 256, 1024, 1 << 21)] == [4096, 4096, 1024, 1]
