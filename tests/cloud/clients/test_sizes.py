"""What messages weigh, and what their payload is made of."""

import struct

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from tests.cloud.fake_grid import FakeGrid, packed_array

from fedperfit.cloud.clients.sizes import NAMES, OTHER, Sizes, measure
from fedperfit.protocol.messages.keys import (
    BASIS_KEY,
    BASIS_RECORD,
    ENVELOPES_KEY,
    SETTINGS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
    STATISTICS_RECORD,
    UPDATE_KEY,
    UPDATE_RECORD,
)
from fedperfit.protocol.shift.packing import MAGIC, ShiftHeader, pack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.flower_internals import message_bytes

SHAPE = ShiftShape(layers=(1, 3), rank=2, hidden_size=8, positions=Positions.parse("l7"))


@pytest.fixture(autouse=True)
def _task_identity() -> None:
    FakeGrid({5: "anna"}, lambda client, message: [])


def message(**records: ArrayRecord | ConfigRecord | MetricRecord) -> Message:
    return Message(RecordDict(records), 5, "train.contribute")


def sizes(**records: ArrayRecord | ConfigRecord | MetricRecord) -> Sizes:
    return measure(message(**records))


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2)])
def test_a_shift_is_told_tensor_by_tensor(dtype: str, width: int) -> None:
    header = ShiftHeader(SHAPE, "LaMP_2M", "f" * 64, 0, dtype)
    packed = pack(Shift.identity(SHAPE, seed=0), header)
    found = sizes(**{SHIFT_RECORD: ArrayRecord({SHIFT_KEY: packed_array(packed)})})
    slab = 2 * 2 * 8 * width
    assert found.tensors == {
        "header": len(packed) - 2 * slab - 4 * width,
        "R": slab,
        "W": slab,
        "b": 4 * width,
    }
    assert found.payload == len(packed) == sum(found.tensors.values())


def test_what_travels_in_a_basis_is_told_apart() -> None:
    settings = ConfigRecord({SHIFT_KEY: bytes(1096), "source": "contrast", "items": 10})
    down = sizes(**{SETTINGS_RECORD: settings, BASIS_RECORD: ConfigRecord({BASIS_KEY: bytes(37_000)})})
    assert down.tensors == {"basis": 37_000, "coordinates": 1096}
    assert sizes(**{UPDATE_RECORD: ConfigRecord({UPDATE_KEY: bytes(40)})}).tensors == {"update": 40}
    statistics = ConfigRecord({"view": bytes(700), "probes": bytes(50)})
    assert sizes(**{STATISTICS_RECORD: statistics}).tensors == {"probes": 50, "view": 700}


def test_lists_of_bytes_are_counted() -> None:
    found = sizes(envelopes=ConfigRecord({ENVELOPES_KEY: [bytes(30), bytes(40)], "clients": ["anna", "ben"]}))
    assert (found.payload, found.tensors) == (70, {"envelopes": 70})


def test_the_message_is_what_flower_would_send() -> None:
    whole = message(**{SHIFT_RECORD: ArrayRecord({SHIFT_KEY: packed_array(bytes(1000))})})
    assert measure(whole) == (1000, message_bytes(whole), {OTHER: 1000})


def test_equal_parts_are_kept_once() -> None:
    records = {UPDATE_RECORD: ConfigRecord({UPDATE_KEY: bytes(40)})}
    assert sizes(**records).tensors is sizes(**records).tensors


@given(
    st.dictionaries(st.text(max_size=12), st.binary(max_size=40), max_size=4),
    st.binary(max_size=120).map(lambda rest: MAGIC + struct.pack("<I", 7) + rest),
)
def test_whatever_a_client_sends_its_words_stay_out(values: dict[str, bytes], shift: bytes) -> None:
    FakeGrid({5: "anna"}, lambda client, message: [])
    found = sizes(a=ConfigRecord(values), b=ArrayRecord({"x": packed_array(shift)}))
    assert set(found.tensors) <= {*NAMES.values(), OTHER}
    assert found.payload == sum(map(len, values.values())) + len(shift) == sum(found.tensors.values())


def test_a_message_without_content_weighs_its_envelope() -> None:
    assert measure(message()).payload == 0
    assert measure(message()).message > 0
