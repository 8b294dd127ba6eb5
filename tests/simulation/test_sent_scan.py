"""What a reply was found to hold of a person's shifts is counted in the person's folder."""

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.vault.stored_shift import FitRecord, ShiftKey
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.messages.keys import SETTINGS_RECORD
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.system.flower_internals import identify_process
from fedperfit.simulation.sent_scan import Scan, scan, total

SHAPE = ShiftShape(layers=(0,), rank=4, hidden_size=32, positions=Positions(0, 2))


@pytest.fixture(autouse=True)
def _process() -> None:
    identify_process(7)


@pytest.fixture
def vault(tmp_path) -> Vault:
    vault, key = Vault(tmp_path / "one" / "vault"), ShiftKey("LaMP_2M", "f", "d", additive=False)
    for number, slot in enumerate(("first", "second")):
        vault.store(slot, PersonalShift.start(SHAPE, seed=number), key, FitRecord(4))
    return vault


def request(**settings: str) -> Message:
    return Message(RecordDict({SETTINGS_RECORD: ConfigRecord(settings)}), 7, "train.personalize")


def reply(to: Message, data: bytes) -> Message:
    return Message(RecordDict({"extra": ConfigRecord({"blob": data})}), reply_to=to)


def numbers(vault: Vault, slot: str) -> bytes:
    return vault.open(slot)[1].R.detach().numpy().tobytes()


def test_replies_are_counted_with_what_they_hold(tmp_path, vault):
    asked = request(slot="first")
    scan(tmp_path / "one", asked, reply(asked, b"nothing"))
    assert total([tmp_path / "one"])[::2] == (1, 0)
    scan(tmp_path / "one", asked, reply(asked, numbers(vault, "first")))
    assert total([tmp_path / "one", tmp_path / "nobody"])[::2] == (2, 4 * 4 * 32)


def test_without_a_slot_every_shift_is_looked_for(tmp_path, vault):
    for asked, found in ((request(), 512), (request(slot="second"), 0), (request(slot="third"), 512)):
        before = total([tmp_path / "one"]).personal
        scan(tmp_path / "one", asked, reply(asked, numbers(vault, "first")))
        assert total([tmp_path / "one"]).personal - before == found


def test_who_has_no_shift_has_no_count(tmp_path):
    asked = request(slot="first")
    scan(tmp_path / "one", asked, reply(asked, torch.rand(100).numpy().tobytes()))
    assert total([tmp_path / "one"]) == Scan()
    assert not (tmp_path / "one").exists()


def test_a_broken_shift_ends_no_run(tmp_path, vault):
    (path,) = vault.folder.rglob("first.sealed")
    path.write_bytes(path.read_bytes()[:50])
    asked = request(slot="first")
    scan(tmp_path / "one", asked, reply(asked, b"an error"))
    assert total([tmp_path / "one"]) == Scan()
