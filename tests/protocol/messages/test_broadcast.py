"""What a request carries is read from either record, and is bytes."""

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedperfit.protocol.messages.broadcast import broadcast
from fedperfit.protocol.messages.keys import SETTINGS_RECORD, SHIFT_KEY, SHIFT_RECORD
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.flower_internals import identify_process, transmitted


def request(settings: dict[str, object], array: bytes | None = None) -> Message:
    identify_process(1, node_id=1)
    records = RecordDict({SETTINGS_RECORD: ConfigRecord({"round": 1, **settings})})  # type: ignore[dict-item]
    if array is not None:
        packed = Array(dtype="uint8", shape=(len(array),), stype="x", data=array)
        records[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: packed})
    return transmitted(Message(records, 1, "train.contribute"))


def test_what_is_broadcast_is_among_the_settings_or_an_array() -> None:
    assert broadcast(request({SHIFT_KEY: b"packed"})) == b"packed"
    assert broadcast(request({}, b"packed")) == b"packed"


def test_what_carries_nothing_or_no_bytes_is_refused() -> None:
    with pytest.raises(KeyError):
        broadcast(request({}))
    with pytest.raises(InputError, match=r"^packed is not bytes$"):
        broadcast(request({SHIFT_KEY: "packed"}))
