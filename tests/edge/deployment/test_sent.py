import pytest
from tests.protocol.trust.chains import HEADER, shift

from fedperfit.edge.deployment.sent import Sent
from fedperfit.protocol.schema import bridge_pb2
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.system.errors import InputError


def test_every_field_of_a_message_with_its_bytes(tmp_path):
    sent = Sent(tmp_path / "sent.jsonl")
    reply = bridge_pb2.ContributeReply(update=pack(shift(), HEADER), items=7, loss=1.5)
    sent.add("contribute", reply)
    scores = bridge_pb2.Scores(correct=0.0, gold=[0, 2, 1])
    sent.add("evaluate", bridge_pb2.EvaluateReply(items=3, scores=scores))
    sent.add_error("personalize", "InputError")
    update, counts, error = Sent(tmp_path / "sent.jsonl").messages()
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


def test_a_line_that_was_cut_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "sent.jsonl"
    sent = Sent(path)
    for kind in ("one", "two"):
        sent.add_error("status", kind)
    path.write_bytes(path.read_bytes()[:-5])
    again = Sent(path)
    again.add_error("status", "three")
    assert [message.fields[0].value for message in again.messages()] == ["one", "three"]


def test_a_broken_record_is_one_line(tmp_path):
    path = tmp_path / "sent.jsonl"
    for broken in ("{}", "[]", '{"call": 1}', "{"):
        path.write_text(broken + "\n")
        with pytest.raises(InputError):
            Sent(path).messages()
