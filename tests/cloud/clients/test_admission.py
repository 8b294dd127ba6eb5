"""The gate on its own: what the fake federation of test_hostile_replies cannot show."""

import dataclasses
import math

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cloud.fake_grid import HEADER, SHAPE, honest, packed_array, perturbed

from fedperfit.cloud.clients.admission import AdmissionGate, Update, admit_counts
from fedperfit.cloud.clients.metric_rules import TRAINING_METRICS, evaluation_metrics
from fedperfit.cloud.clients.replies import Rejected
from fedperfit.protocol.messages.keys import (
    COUNTS_RECORD,
    METRICS_RECORD,
    SETTINGS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
)
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.flower_internals import identify_process
from fedperfit.protocol.tasks import task_by_name


def gate(header: ShiftHeader = HEADER) -> AdmissionGate:
    return AdmissionGate(header=header, round=1, max_norm=100.0, max_items=50)


def request(header: ShiftHeader = HEADER) -> Message:
    identify_process(1, node_id=1)
    data = pack(Shift.identity(header.shape, seed=0), header)
    content = RecordDict(
        {
            SHIFT_RECORD: ArrayRecord({SHIFT_KEY: packed_array(data)}),
            SETTINGS_RECORD: ConfigRecord({"round": 1}),
        }
    )
    return Message(content, 1, "train.contribute")


def reply(items: object = 4, round: object = 1, metrics: dict[str, object] | None = None) -> Message:
    content = RecordDict({COUNTS_RECORD: MetricRecord({"items": items, "round": round})})
    if metrics is not None:
        content[METRICS_RECORD] = MetricRecord(metrics)
    return Message(content, reply_to=request())


def test_admits_an_honest_update() -> None:
    update = gate().admit("anna", honest("anna", request())[0])
    assert update.client == "anna"
    assert update.metrics == {"loss": 0.5 * update.trained}
    assert update.shift.shape == SHAPE


def test_admits_bf16_as_it_rounds() -> None:
    header = dataclasses.replace(HEADER, dtype="bfloat16")
    update = gate(header).admit("anna", honest("anna", request(header))[0])
    R = update.shift.R
    assert (R @ R.mT - torch.eye(2)).abs().max() < 1e-5


def test_refuses_a_second_reply_even_after_a_bad_one() -> None:
    one = gate()
    good = honest("anna", request())[0]
    with pytest.raises(Rejected):
        one.admit("anna", reply())
    with pytest.raises(Rejected, match="second reply"):
        one.admit("anna", good)
    one.admit("ben", good)
    with pytest.raises(Rejected, match="second reply"):
        one.admit("ben", good)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_raise_nothing_but_rejected(data: st.DataObject) -> None:
    message = request()
    content = honest("anna", message)[0].content
    packed = bytearray(content[SHIFT_RECORD][SHIFT_KEY].data)
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    content[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: packed_array(bytes(packed))})
    outcome: Update | Rejected
    try:
        outcome = gate().admit("anna", Message(content, reply_to=message))
    except Rejected as reason:
        outcome = reason
    if isinstance(outcome, Rejected):
        assert str(outcome).isprintable()
        assert len(str(outcome)) <= 240
    else:
        update = outcome
        assert update.shift.W.isfinite().all()
        assert (update.shift.W - update.shift.R).norm() <= 100.0


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_after_the_magic_raise_nothing_but_rejected(noise: bytes) -> None:
    message = request()
    content = honest("anna", message)[0].content
    packed = b"FPS1" + len(noise).to_bytes(4, "little") + noise
    content[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: packed_array(packed)})
    with pytest.raises(Rejected):
        gate().admit("anna", Message(content, reply_to=message))


def test_whatever_a_reply_raises_is_a_rejection() -> None:
    class Bomb:
        def has_error(self) -> bool:
            raise MemoryError("too large\nby far")

    with pytest.raises(Rejected, match=r"unreadable \(MemoryError: too large by far\)"):
        gate().admit("anna", Bomb())  # type: ignore[arg-type]


def test_the_norm_bound_is_on_each_of_the_two_parts() -> None:
    far = perturbed(Shift.identity(SHAPE, seed=0), "far", scale=0.0)
    with torch.no_grad():
        far.W[0, 0, 0] += 3.0
        far.b[0, 0] = 3.0
    content = honest("anna", request())[0].content
    content[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: packed_array(pack(far, HEADER))})
    message = Message(content, reply_to=request())
    AdmissionGate(header=HEADER, round=1, max_norm=3.01, max_items=9).admit("anna", message)
    with pytest.raises(Rejected, match=r"norm of W - R is 3, above 2\.9"):
        AdmissionGate(header=HEADER, round=1, max_norm=2.9, max_items=9).admit("anna", message)


GOOD_METRICS = {
    "LaMP_2M": {
        "correct": 3,
        "true-positives": [3] + [0] * 14,
        "predicted": [4] + [0] * 14,
        "gold": [3, 1] + [0] * 13,
    },
    "LaMP_3": {"correct": 2, "absolute-error": 3.0, "squared-error": 5.0},
    "LaMP_4": {"correct": 0, "rouge-1": 1.5, "rouge-L": 1.25},
}


@pytest.mark.parametrize("task", GOOD_METRICS)
def test_admits_the_sums_of_each_kind_of_task(task: str) -> None:
    rules = evaluation_metrics(task_by_name(task))
    counts = admit_counts("anna", reply(4, 0, GOOD_METRICS[task]), rules)
    assert counts.items == 4
    assert counts.metrics == GOOD_METRICS[task]


def test_counts_without_metrics_and_of_nothing() -> None:
    assert admit_counts("anna", reply(0, 0), TRAINING_METRICS).metrics == {}
    counts = admit_counts("anna", reply(0, 0, {"loss": 0.0}), TRAINING_METRICS)
    assert counts.metrics == {"loss": 0.0}


@pytest.mark.parametrize(
    ("task", "key", "value", "reason"),
    [
        ("LaMP_2M", "correct", 5, r"outside 0\.\.4"),
        ("LaMP_2M", "correct", math.nan, "is nan"),
        ("LaMP_2M", "gold", [1] * 14, "not a list of 15"),
        ("LaMP_2M", "gold", [1.0] * 15, "not a list of counts"),
        ("LaMP_2M", "gold", [1] * 15, r"is 15, outside 0\.\.4"),
        ("LaMP_2M", "predicted", [-1] + [0] * 14, "not a list of counts"),
        ("LaMP_2M", "predicted", 4, "not a list of 15"),
        ("LaMP_3", "absolute-error", 16.5, r"outside 0\.\.16"),
        ("LaMP_3", "squared-error", -0.1, "outside"),
        ("LaMP_3", "squared-error", 10**30, "out of range"),
        ("LaMP_4", "rouge-1", math.inf, "is inf"),
        ("LaMP_4", "rouge-L", [0.1], "not a number"),
    ],
)
def test_refuses_sums_that_cannot_be(task: str, key: str, value: object, reason: str) -> None:
    rules = evaluation_metrics(task_by_name(task))
    with pytest.raises(Rejected, match=reason):
        admit_counts("anna", reply(4, 0, {**GOOD_METRICS[task], key: value}), rules)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (lambda: reply(-1, 0), "items=-1"),
        (lambda: reply(2.0, 0), "not a whole number"),
        (lambda: reply(2, 1), "round=1, expected 0"),
        (lambda: reply(2, 0, {}), "metrics lacks the key 'loss'"),
        (lambda: reply(2, 0, {"loss": 1.0, "norm": 2.0}), "unknown key 'norm'"),
        (lambda: honest("anna", request())[0], "unknown ArrayRecord 'shift'"),
        (lambda: Message(RecordDict(), reply_to=request()), "record counts is missing"),
    ],
)
def test_refuses_counts_that_are_not(message: object, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        admit_counts("anna", message(), TRAINING_METRICS)  # type: ignore[operator]
