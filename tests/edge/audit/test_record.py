"""The record of requests and messages, in words."""

import json
import time

import pytest
from tests.protocol.trust.chains import HEADER, shift

from fedperfit.edge.audit.bursts import Bursts
from fedperfit.edge.audit.files import events
from fedperfit.edge.audit.log import Unrecorded
from fedperfit.edge.audit.rates import OTHERS, STATUS, Rates, TooManyRequests
from fedperfit.edge.audit.record import Record
from fedperfit.protocol.schema import bridge_pb2
from fedperfit.protocol.shift.packing import pack


@pytest.fixture
def record(tmp_path):
    record = Record(tmp_path / "audit", tmp_path / "sent.jsonl")
    yield record
    record.close()


def test_every_field_of_a_message_with_its_bytes(record):
    reply = bridge_pb2.ContributeReply(update=pack(shift(), HEADER), items=7, loss=1.5)
    record.answered(1, "contribute", reply)
    scores = bridge_pb2.Scores(correct=0.0, gold=[0, 2, 1])
    record.answered(2, "evaluate", bridge_pb2.EvaluateReply(items=3, scores=scores))
    record.refused(3, "personalize", "InputError", "rank=9: too large")
    update, counts, error = record.messages()
    assert {field.name: field.value for field in update.fields} == {
        "update": "collective shift, layers 1, rank 1",
        "items": "7",
        "loss": "1.5",
    }
    assert sum(field.bytes for field in update.fields) == update.bytes == reply.ByteSize()
    assert [(field.name, field.value) for field in counts.fields] == [
        ("items", "3"),
        ("scores.correct", "0.0"),
        ("scores.gold", "0 2 1"),
    ]
    assert [(field.name, field.value, field.bytes) for field in error.fields] == [("error", "InputError", 10)]
    assert error.reason == "rank=9: too large"
    assert list(record.messages(after=counts.number)) == [error]
    assert list(record.messages(newest=1)) == [error]
    assert (record.totals.refused, record.totals.refusal) == (
        1,
        f"{error.time} personalize: rank=9: too large",
    )


def test_reasons_are_one_line_each_whatever_the_cloud_had_them_say(record, tmp_path):
    said = "\x1b[2J\nno field " + "x" * 5_000_000
    record.refused(1, "personalize", "InputError", said)
    record.fetched(reason=said)
    (error,) = record.messages()
    assert error.reason.isprintable()
    assert len(error.reason) == 400
    assert len(record.totals.refusal) < 500
    *_, fetched = events(tmp_path / "audit")
    assert fetched["reason"] == error.reason


def test_a_request_is_recorded_as_it_came_in_bounded_size(record, tmp_path):
    training = bridge_pb2.Training(epochs=3, learning_rate=0.5, prompt_form="x" * 100_000)
    number = record.received("contribute", bridge_pb2.ContributeRequest(shift=b"broken", training=training))
    (event,) = events(tmp_path / "audit")
    settings = event["settings"]
    assert (event["n"], event["call"], settings["epochs"]) == (number, "contribute", 3)
    assert settings["learning_rate"] == 0.5
    assert settings["max_items"] == 0
    assert settings["shift"].startswith("6 bytes, SHA-256 ")
    assert settings["prompt_form"].endswith("(100000 characters)")
    assert len(json.dumps(event)) < 1_000
    record.received("contribute", bridge_pb2.ContributeRequest(shift=pack(shift(), HEADER)))
    *_, event = events(tmp_path / "audit")
    assert event["settings"]["shift"] == "collective shift, layers 1, rank 1"
    data = pack(shift(), HEADER)
    header = json.loads(data[8 : 8 + int.from_bytes(data[4:8], "little")])
    header = json.dumps(header | {"layers": list(range(9_000))}).encode()
    many = data[:4] + len(header).to_bytes(4, "little") + header
    record.received("contribute", bridge_pb2.ContributeRequest(shift=many))
    *_, event = events(tmp_path / "audit")
    assert event["settings"]["shift"].startswith("collective shift, layers 0, 1, 2, ")
    assert len(json.dumps(event)) < 1_000


def test_an_old_record_is_still_read(tmp_path):
    old = {
        "call": "status",
        "bytes": 3,
        "fields": [{"name": "task", "value": "t", "bytes": 3}],
        "time": "then",
    }
    lines = [json.dumps(old), "{}", "[]", "{", json.dumps(old | {"call": "evaluate"})[:-5]]
    (tmp_path / "sent.jsonl").write_text("\n".join(lines))
    record = Record(tmp_path / "audit", tmp_path / "sent.jsonl")
    record.refused(1, "evaluate", "InputError", "why")
    assert [(message.call, message.number > 0) for message in record.messages()] == [
        ("status", False),
        ("evaluate", True),
    ]
    assert (tmp_path / "sent.jsonl").read_text() == "\n".join(lines)


def test_what_comes_too_fast_is_counted_and_written_once(record, tmp_path):
    for _ in range(1_000):
        record.turned_away("status", "TooManyRequests")
    record.turned_away("probe", "TooManyRequests")
    record.close()
    written = list(events(tmp_path / "audit"))
    assert len(written) <= 3
    assert sum(event["calls"].get("status", [0])[0] for event in written) == 1_000
    assert record.totals.refused == 1_001
    assert record.totals.messages["status"] == [1_000, 15_000]
    assert sum(message.bytes for message in record.messages()) == 15_015


def test_counts_that_found_no_room_are_written_later():
    written, full = [], [True]

    def write(counts: object) -> None:
        if full[0]:
            raise Unrecorded("no room")
        written.append(counts)

    bursts = Bursts(write, seconds=0.02)
    bursts.count("status", 5)
    time.sleep(0.1)
    assert written == []
    full[0] = False
    bursts.count("status", 5)
    for _ in range(100):
        if written:
            break
        time.sleep(0.02)
    assert written == [{"status": [2, 10]}]


def test_a_bucket_is_empty_after_a_burst_and_fills_again():
    now = [0.0]
    rates = Rates(lambda: now[0])
    for kind, rate in (("status", STATUS), ("pull", OTHERS)):
        for _ in range(rate.burst):
            rates.take(kind)
        with pytest.raises(TooManyRequests):
            rates.take(kind)
    now[0] = 1.0
    for _ in range(2):
        rates.take("status")
    rates.take("pull")
    for kind in ("status", "pull"):
        with pytest.raises(TooManyRequests):
            rates.take(kind)
    now[0] = 1_000.0
    for _ in range(OTHERS.burst):
        rates.take("pull")
    with pytest.raises(TooManyRequests):
        rates.take("pull")
