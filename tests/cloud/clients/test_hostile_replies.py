"""One hostile client of four, in every position of the reply order: the round costs its update only."""

import dataclasses
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from tests.cloud.fake_grid import (
    FakeGrid,
    federation,
    flat,
    honest,
    items_of,
    packed_array,
    reply_content,
)

from fedperfit.protocol.messages.keys import (
    COUNTS_RECORD,
    METRICS_RECORD,
    ROUND_KEY,
    SETTINGS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
)
from fedperfit.protocol.shift.packing import pack, unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.flower_internals import transmitted

HONEST = ("anna", "ben", "carl")
HOSTILE = "mallory"
Twist = Callable[[RecordDict, Message], object]


def values(index: int, value: float) -> Twist:
    """Replace one value of the packed shift; `index` counts from the first value of R."""

    def twist(content: RecordDict, message: Message) -> None:
        data = bytearray(content[SHIFT_RECORD][SHIFT_KEY].data)
        (length,) = struct.unpack("<I", data[4:8])
        struct.pack_into("<f", data, 8 + length + 4 * index, value)
        content[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: packed_array(bytes(data))})

    return twist


def array(**changes: object) -> Twist:
    """The array's description or data replaced; a callable gets the old value."""

    def twist(content: RecordDict, message: Message) -> None:
        old = content[SHIFT_RECORD][SHIFT_KEY]
        fields = {"dtype": old.dtype, "shape": old.shape, "stype": old.stype, "data": old.data}
        for name, value in changes.items():
            fields[name] = value(fields[name]) if callable(value) else value
        if "data" in changes and "shape" not in changes:
            fields["shape"] = (len(fields["data"]),)
        content[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: Array(**fields)})

    return twist


def header(**changes: object) -> Twist:
    """Packed again, consistently, under another header."""

    def twist(content: RecordDict, message: Message) -> None:
        shift, old = unpack(content[SHIFT_RECORD][SHIFT_KEY].data)
        data = pack(shift, dataclasses.replace(old, **changes))
        content[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: packed_array(data)})

    return twist


def other_rank(content: RecordDict, message: Message) -> None:
    _, old = unpack(content[SHIFT_RECORD][SHIFT_KEY].data)
    shape = dataclasses.replace(old.shape, rank=3)
    data = pack(Shift.identity(shape, seed=0), dataclasses.replace(old, shape=shape))
    content[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: packed_array(data)})


def other_header(content: RecordDict, message: Message) -> None:
    _, old = unpack(content[SHIFT_RECORD][SHIFT_KEY].data)
    header(round=old.round + 1)(content, message)


def spaced_header(content: RecordDict, message: Message) -> None:
    data = content[SHIFT_RECORD][SHIFT_KEY].data
    (length,) = struct.unpack("<I", data[4:8])
    data = data[:4] + struct.pack("<I", length + 4) + data[8 : 8 + length] + b"    " + data[8 + length :]
    content[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: packed_array(data)})


def counts(**changes: object) -> Twist:
    def twist(content: RecordDict, message: Message) -> None:
        record = dict(content[COUNTS_RECORD])
        record.update(changes)
        content[COUNTS_RECORD] = MetricRecord({k: v for k, v in record.items() if v is not None})

    return twist


def metrics(**changes: object) -> Twist:
    def twist(content: RecordDict, message: Message) -> None:
        content[METRICS_RECORD] = MetricRecord(changes)

    return twist


def extra(name: str, record: ArrayRecord | MetricRecord | ConfigRecord) -> Twist:
    def twist(content: RecordDict, message: Message) -> None:
        content[name] = record

    return twist


def without(name: str) -> Twist:
    def twist(content: RecordDict, message: Message) -> None:
        del content[name]

    return twist


def extra_array(content: RecordDict, message: Message) -> None:
    content[SHIFT_RECORD] = ArrayRecord({**content[SHIFT_RECORD], "personal": packed_array(b"x")})


def numpy_array(tensor: torch.Tensor) -> Twist:
    def twist(content: RecordDict, message: Message) -> None:
        content[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: Array(tensor.numpy())})

    return twist


def wrong_type(content: RecordDict, message: Message) -> None:
    del content[SHIFT_RECORD]
    content[SHIFT_RECORD] = ConfigRecord({SHIFT_KEY: b"x"})


# R holds 2 x 2 x 6 = 24 values, W as many, b 4
TWISTS: dict[str, tuple[Twist, str]] = {
    "NaN in R": (values(0, float("nan")), "R contains NaN"),
    "NaN in W": (values(24, float("nan")), "W contains NaN"),
    "NaN in b": (values(51, float("nan")), "b contains NaN"),
    "Inf in W": (values(30, float("inf")), "W contains Inf"),
    "-Inf in b": (values(48, float("-inf")), "b contains Inf"),
    "1e30 in R": (values(1, 1e30), "rows of R are not orthonormal"),
    "1e30 in W": (values(25, 1e30), "norm of W - R is 1e\\+30, above 100"),
    "1e30 in b": (values(49, 1e30), "norm of b is 1e\\+30"),
    "R doubled": (values(0, 2.0), "rows of R are not orthonormal"),
    "float32 dtype": (array(dtype="float32"), "dtype is 'float32'"),
    "complex dtype": (array(dtype="complex128"), "dtype is 'complex128'"),
    "complex array": (numpy_array(torch.zeros(8, dtype=torch.complex128)), "stype is 'numpy.ndarray'"),
    "a plain array": (numpy_array(torch.zeros(2, 2, 6)), "stype is 'numpy.ndarray'"),
    "shape (1,)": (array(shape=(1,)), r"shape is \(1,\)"),
    "shape (n, 1)": (array(shape=lambda s: (*s, 1)), "shape is"),
    "unknown stype": (array(stype="pickle"), "stype is 'pickle'"),
    "extra key": (extra_array, "shift holds an unknown key 'personal'"),
    "missing key": (extra(SHIFT_RECORD, ArrayRecord()), "shift lacks the key 'packed'"),
    "missing shift": (without(SHIFT_RECORD), "record shift is missing"),
    "missing counts": (without(COUNTS_RECORD), "record counts is missing"),
    "extra ArrayRecord": (
        extra("personal", ArrayRecord({"R": packed_array(b"x")})),
        "unknown ArrayRecord 'personal'",
    ),
    "extra MetricRecord": (extra("norms", MetricRecord({"n": 1.0})), "unknown MetricRecord 'norms'"),
    "extra ConfigRecord": (
        extra("smuggled", ConfigRecord({"b": b"x"})),
        "unknown ConfigRecord 'smuggled'",
    ),
    "record of another type": (wrong_type, "shift is a ConfigRecord"),
    "garbage": (array(data=b"\x00\xff" * 400), "not a packed shift"),
    "garbage after the magic": (array(data=b"FPS1" + b"\xff" * 400), "truncated"),
    "no bytes": (array(data=b""), "not a packed shift"),
    "truncated by one": (array(data=lambda d: d[:-1]), "expected"),
    "truncated header": (array(data=lambda d: d[:20]), "truncated"),
    "over-long": (array(data=lambda d: d + b"\x00" * 4), "expected"),
    "another fingerprint": (header(fingerprint="0" * 64), "fingerprint is '000"),
    "another task": (header(task="LaMP_3"), "task is 'LaMP_3'"),
    "another dtype": (header(dtype="bfloat16"), "dtype is 'bfloat16'"),
    "another rank": (other_rank, "rank is 3, expected 2"),
    "header of another round": (other_header, "header's round is"),
    "respaced header": (spaced_header, "bytes differ from those broadcast"),
    "old round": (counts(round=-1), "round=-1, expected"),
    "round of a float": (counts(round=1.0), "round=1.0, expected"),
    "no round": (counts(round=None), "counts lacks the key 'round'"),
    "no items": (counts(items=None), "counts lacks the key 'items'"),
    "extra count": (counts(norm=3), "counts holds an unknown key 'norm'"),
    "counts of 0": (counts(items=0), "items=0: must be at least 1"),
    "negative counts": (counts(items=-5), "items=-5"),
    "NaN counts": (counts(items=float("nan")), "items=nan is not a whole number"),
    "1e12 as a float": (counts(items=1e12), "items=1000000000000.0 is not a whole number"),
    "a list of counts": (counts(items=[3]), "is not a whole number"),
    "NaN loss": (metrics(loss=float("nan")), "metric loss is nan"),
    "Inf loss": (metrics(loss=float("inf")), "metric loss is inf"),
    "negative loss": (metrics(loss=-1.0), "metric loss is -1"),
    "loss of 1e30": (metrics(loss=1e30), "metric loss is 1e\\+30"),
    "a list of losses": (metrics(loss=[0.1, 0.2]), "metric loss is not a number"),
    "unknown metric": (metrics(loss=0.5, norm=1.0), "metrics holds an unknown key 'norm'"),
}


def run(folder: Path, hostile: Callable[[Message], list[Message]], position: int, **changes: object):
    """Final shift and reports with mallory replying in that position."""

    def answer(client: str, message: Message) -> list[Message]:
        return hostile(message) if client == HOSTILE else honest(client, message)

    order = [*HONEST[:position], HOSTILE, *HONEST[position:]]
    grid = FakeGrid(dict(enumerate((*HONEST, HOSTILE), start=1)), answer, order)
    job = federation(folder, grid, **changes)
    return job.train(grid.clients.values(), lambda report: None), job, grid


@pytest.fixture(scope="module")
def without_mallory(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    grid = FakeGrid(dict(enumerate(HONEST, start=1)), honest)
    return flat(federation(tmp_path_factory.mktemp("run"), grid).train(HONEST, lambda report: None))


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("name", TWISTS)
def test_a_bad_reply_costs_its_own_update_only(
    name: str, position: int, tmp_path: Path, without_mallory: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    twist, reason = TWISTS[name]

    def hostile(message: Message) -> list[Message]:
        content = reply_content(HOSTILE, message)
        twist(content, message)
        return [Message(content, reply_to=message)]

    shift, job, grid = run(tmp_path, hostile, position)
    assert flat(shift) == without_mallory
    assert grid.received[position][0] == HOSTILE
    assert [report.admitted for report in job.history] == [list(HONEST)] * 2
    for number in (1, 2):
        logged = [r.getMessage() for r in caplog.records if f"round {number}" in r.getMessage()]
        assert len(logged) == 1
        assert logged[0].startswith(f"round {number}: dropped {HOSTILE}: ")
        assert re.search(reason, logged[0]), logged[0]
        assert "\n" not in logged[0]


@pytest.mark.parametrize("position", range(4))
def test_an_error_reply(
    position: int, tmp_path: Path, without_mallory: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def hostile(message: Message) -> list[Message]:
        return [Message(Error(7, "Traceback\n  a\x1b[31m line"), reply_to=message)]

    shift, _, _ = run(tmp_path, hostile, position)
    assert flat(shift) == without_mallory
    assert "round 1: dropped mallory: error reply (code 7): Traceback a?[31m line" in caplog.messages


def test_no_reply(tmp_path: Path, without_mallory: bytes, caplog: pytest.LogCaptureFixture) -> None:
    shift, job, _ = run(tmp_path, lambda message: [], 0)
    assert flat(shift) == without_mallory
    assert "round 2: dropped mallory: no reply within 5 s" in caplog.messages
    assert job.history[0].dropped == {HOSTILE: "no reply within 5 s"}


@pytest.mark.parametrize("position", range(4))
def test_the_same_reply_twice_counts_once(
    position: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    honestly, _, _ = run(tmp_path / "once", lambda m: honest(HOSTILE, m), position)
    shift, _, _ = run(tmp_path / "twice", lambda m: honest(HOSTILE, m) * 2, position)
    assert flat(shift) == flat(honestly)
    assert caplog.messages.count("mallory: ignored a second reply to the same message") == 2


@pytest.mark.parametrize("position", range(4))
def test_replaying_round_one_in_round_two(
    position: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[RecordDict] = []

    def replay(message: Message) -> list[Message]:
        kept.append(kept[0] if kept else reply_content(HOSTILE, message))
        return [Message(kept[-1], reply_to=message)]

    def leave(message: Message) -> list[Message]:
        return honest(HOSTILE, message) if message.content[SETTINGS_RECORD][ROUND_KEY] == 1 else []

    shift, job, _ = run(tmp_path / "replay", replay, position)
    left, _, _ = run(tmp_path / "leave", leave, position)
    assert flat(shift) == flat(left)
    assert job.history[1].dropped == {HOSTILE: "round=1, expected 2"}


@pytest.mark.parametrize("position", range(4))
def test_a_count_of_1e12_weighs_no_more_than_the_cap(position: int, tmp_path: Path) -> None:
    def claim(items: int) -> Callable[[Message], list[Message]]:
        def hostile(message: Message) -> list[Message]:
            content = reply_content(HOSTILE, message)
            counts(items=items)(content, message)
            return [Message(content, reply_to=message)]

        return hostile

    greedy, job, _ = run(tmp_path / "greedy", claim(10**12), position)
    capped, _, _ = run(tmp_path / "capped", claim(6), position)
    assert flat(greedy) == flat(capped)
    assert job.history[0].items == 6 + sum(min(items_of(name), 6) for name in HONEST)


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("error", [ValueError("bad head"), KeyError("x"), TypeError("none")])
def test_a_reply_flower_cannot_decode(
    position: int,
    error: Exception,
    tmp_path: Path,
    without_mallory: bytes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = FakeGrid.pull_messages

    def layer_gradient(self: FakeGrid, message_ids: list[str]) -> list[Message]:
        replies = list(original(self, message_ids))
        if any(r.metadata.src_node_id == 4 for r in replies):
            raise error
        return replies

    monkeypatch.setattr(FakeGrid, "pull_messages", layer_gradient)
    shift, _, _ = run(tmp_path, lambda m: honest(HOSTILE, m), position)
    assert flat(shift) == without_mallory
    assert any("round 1: dropped mallory: error reply" in line for line in caplog.messages)


def test_answering_for_another_node_is_ignored(
    tmp_path: Path, without_mallory: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def hostile(message: Message) -> list[Message]:
        asked = transmitted(message)
        asked.metadata.dst_node_id = 1  # a reply comes from the node that was asked
        return [Message(reply_content(HOSTILE, message), reply_to=asked)]

    shift, _, _ = run(tmp_path, hostile, 2)
    assert flat(shift) == without_mallory
    assert "anna: ignored its reply to a message for mallory" in caplog.messages
    assert "round 1: dropped mallory: no reply within 5 s" in caplog.messages
