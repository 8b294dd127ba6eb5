"""The group's directions over clients that keep their pairs, against the same pairs in one place."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from tests.cloud.fake_grid import Answer, FakeGrid
from tests.cloud.pair_keepers import LAYERS, PAIRS, SIZE, Keepers, planted, pooled, search
from tests.leaks import found_in, rows_coded

from fedperfit.cloud.job.directions import EVALUATIONS
from fedperfit.edge.chameleon.identify import States
from fedperfit.protocol.messages.keys import (
    COUNTS_RECORD,
    MOMENTS_TYPE,
    PROBE_TYPE,
    ROUND_KEY,
    SETTINGS_RECORD,
    STATISTICS_RECORD,
)
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.system.errors import InputError

FEW = planted(6)


def find(
    folder: Path, people: dict[str, States], answer: Answer, *, edited: int = 2
) -> tuple[Directions, Ledger]:
    grid = FakeGrid(dict(enumerate(sorted(people), start=1)), answer)
    ledger = Ledger(folder / "ledger.jsonl")
    return search(grid, ledger).find(list(people), edited=edited, seed=0), ledger


def cosines(one: Directions, other: Directions) -> torch.Tensor:
    assert one.layers == other.layers
    return torch.stack(
        [(getattr(one, s) * getattr(other, s)).sum(1).abs() for s in ("personalized", "neutral")]
    )


def test_a_hundred_clients_find_what_their_pooled_pairs_hold(tmp_path, monkeypatch):
    people = planted(100)
    keepers = Keepers(people, monkeypatch)
    found, ledger = find(tmp_path, people, keepers.answer)
    expected, _ = pooled(people, edited=2, seed=0)
    assert found.layers == (2, 4)
    assert cosines(found, expected).min() > 0.999
    entries = ledger.entries()
    assert len(entries) >= 2 * 100 * (1 + EVALUATIONS)
    assert {entry.phase for entry in entries} == {"directions"}
    each = [sum(e.message for e in entries if e.client == client) for client in people]
    states = 2 * PAIRS * LAYERS * SIZE * 4
    assert max(each) < 0.7 * states
    payload = sum(e.payload for e in entries if e.client == "c000")
    assert payload < each[0] < payload + 300 * 2 * (EVALUATIONS + 3)


def test_no_single_pair_is_in_any_message(tmp_path, monkeypatch):
    keepers = Keepers(FEW, monkeypatch)
    find(tmp_path, FEW, keepers.answer)
    secret = {}
    for client, states in FEW.items():
        for side in ("personalized", "neutral"):
            secret |= rows_coded(f"{client} {side}", getattr(states, side).flatten(0, 1))
        _, p, n = keepers.memory.coordinates[client]
        secret |= rows_coded(f"{client} coordinates", [*p.flatten(0, 1), *n.flatten(0, 1)])
    recorded = b"".join(one for message in keepers.sent for one in everything(message))
    assert len(recorded) > 6 * 2 * EVALUATIONS * 300
    assert found_in(recorded, secret) == set()
    row = FEW["c001"].neutral[3, 4]
    for coding in ("fp32", "fp16", "bf16"):
        planted_leak = rows_coded("", [row])[f" 0 {coding}"]
        assert f"c001 neutral {3 * PAIRS + 4} {coding}" in found_in(recorded + planted_leak, secret)


def everything(message: Message) -> list[bytes]:
    """Bytes of all values of a message."""
    if message.has_error():
        return [message.error.reason.encode()]
    values = [value for record in message.content.values() for value in record.values()]
    return [value if isinstance(value, bytes) else repr(value).encode() for value in values]


def test_a_client_with_too_few_pairs_is_told_of_by_the_errors_type_alone(tmp_path, monkeypatch, caplog):
    few = {side: getattr(FEW["c000"], side)[:, :3] for side in ("personalized", "neutral")}
    people = {**FEW, "c000": States(**few)}
    found, _ = find(tmp_path, people, Keepers(people, monkeypatch).answer)
    without = {client: states for client, states in FEW.items() if client != "c000"}
    assert cosines(found, pooled(without, edited=2, seed=0)[0]).min() > 0.999
    assert any("dropped c000: error reply" in m and "(TooFewPairs)" in m for m in caplog.messages)


@pytest.mark.parametrize("at", [1, 3, 12])
def test_a_client_that_is_lost_in_the_search_is_left_out_of_all_of_it(at, tmp_path, monkeypatch, caplog):
    keepers = Keepers(FEW, monkeypatch)

    def answer(client: str, message: Message) -> list[Message]:
        lost = client == "c002" and message.metadata.message_type == PROBE_TYPE
        return [] if lost and round_of(message) == at else keepers.answer(client, message)

    found, _ = find(tmp_path, FEW, answer)
    without = {client: states for client, states in FEW.items() if client != "c002"}
    alone, _ = find(tmp_path / "without", without, Keepers(without, monkeypatch).answer)
    assert found.to_bytes() == alone.to_bytes()
    assert "directions: the search starts again with 5 clients" in caplog.messages
    assert f"directions, round {at}: dropped c002: no reply within 5 s" in caplog.messages


def round_of(message: Message) -> int:
    return int(message.content[SETTINGS_RECORD][ROUND_KEY])


def test_with_one_client_left_there_is_no_group(tmp_path, monkeypatch):
    keepers = Keepers(FEW, monkeypatch)

    def answer(client: str, message: Message) -> list[Message]:
        return keepers.answer(client, message) if client == "c003" else []

    with pytest.raises(InputError, match="1 client left, at least 2 are needed"):
        find(tmp_path, FEW, answer)


def test_when_every_search_loses_somebody_it_ends(tmp_path, monkeypatch):
    people = planted(9)
    keepers = Keepers(people, monkeypatch)
    searches: list[str] = []

    def answer(client: str, message: Message) -> list[Message]:
        if message.metadata.message_type == PROBE_TYPE and round_of(message) == 1 and client == "c008":
            searches.append(client)
        lost = len(searches) > 0 and round_of(message) == 2 and client == f"c{len(searches):03}"
        return [] if lost else keepers.answer(client, message)

    with pytest.raises(InputError, match="lost in each of 5 searches"):
        find(tmp_path, people, answer)


def test_a_view_that_was_forgotten_is_sent_again(tmp_path, monkeypatch):
    keepers = Keepers(FEW, monkeypatch)

    def answer(client: str, message: Message) -> list[Message]:
        if client == "c004" and message.metadata.message_type == PROBE_TYPE and round_of(message) == 5:
            if not gone:
                keepers.memory.forget(client)
            gone.append(client)
        return keepers.answer(client, message)

    gone: list[str] = []
    found, ledger = find(tmp_path, FEW, answer)
    assert gone == ["c004", "c004"]
    expected, _ = find(tmp_path / "never", FEW, Keepers(FEW, monkeypatch).answer)
    assert found.to_bytes() == expected.to_bytes()
    views = [e for e in ledger.entries() if e.direction == "down" and e.payload > 2 * LAYERS * SIZE * 2]
    assert [(e.round, e.client) for e in views] == [*((1, c) for c in sorted(FEW)), (5, "c004")]


Twist = Callable[[RecordDict], None]


def statistics(change: Callable[[bytes], object], key: str | None = None) -> Twist:
    def twist(content: RecordDict) -> None:
        ((name, data),) = content[STATISTICS_RECORD].items()
        content[STATISTICS_RECORD] = ConfigRecord({key or name: change(data)})  # type: ignore[dict-item]

    return twist


def counts(**changes: int | float) -> Twist:
    def twist(content: RecordDict) -> None:
        content[COUNTS_RECORD] = MetricRecord({**content[COUNTS_RECORD], **changes})

    return twist


def without(name: str) -> Twist:
    def twist(content: RecordDict) -> None:
        del content[name]

    return twist


def extra(content: RecordDict) -> None:
    content["pairs"] = ConfigRecord({"texts": b"x"})


def nans(data: bytes) -> bytes:
    return b"\x00\x00\xc0\x7f" * (len(data) // 4)


NAN64 = b"\x00\x00\x00\x00\x00\x00\xf8\x7f"
BOTH: dict[str, tuple[Twist, str]] = {
    "truncated": (statistics(lambda data: data[:-1]), "bytes of statistics, expected"),
    "over-long": (statistics(lambda data: data + bytes(8)), "bytes of statistics, expected"),
    "no bytes": (statistics(lambda data: b""), "0 bytes of statistics"),
    "text": (statistics(lambda data: "text"), "is not bytes"),
    "another key": (statistics(lambda data: data, "texts"), "unknown key 'texts'"),
    "another record": (extra, "unknown ConfigRecord 'pairs'"),
    "no counts": (without(COUNTS_RECORD), "record counts is missing"),
    "a broken count": (counts(items=7.5), "is not a whole number"),
    "an old round": (counts(round=-1), "round=-1, expected"),
}
HOSTILE: dict[str, tuple[str, Twist, str]] = {
    **{f"moments, {name}": (MOMENTS_TYPE, *twist) for name, twist in BOTH.items()},
    **{f"probe, {name}": (PROBE_TYPE, *twist) for name, twist in BOTH.items()},
    "moments, NaN": (MOMENTS_TYPE, statistics(nans), "not finite"),
    "moments, 1e30": (
        MOMENTS_TYPE,
        statistics(lambda d: d[:-4] + torch.tensor([1e30]).numpy().tobytes()),
        "moments exceed 1e\\+06",
    ),
    "probe, 1e300": (
        PROBE_TYPE,
        statistics(lambda d: d[:-8] + torch.tensor([-1e300], dtype=torch.double).numpy().tobytes()),
        "gradients exceed 10000",
    ),
    "moments, no statistics": (MOMENTS_TYPE, without(STATISTICS_RECORD), "statistics is missing"),
    "moments, three pairs": (MOMENTS_TYPE, counts(items=3), "items=3: must be at least 4"),
    "moments, too many pairs": (
        MOMENTS_TYPE,
        counts(items=10**9),
        "1000000000 pairs, more than the 10 asked for",
    ),
    "probe, NaN": (PROBE_TYPE, statistics(lambda d: NAN64 * (len(d) // 8)), "not finite"),
    "probe, negative losses": (
        PROBE_TYPE,
        statistics(lambda d: (torch.zeros(len(d) // 8).double() - 1).numpy().tobytes()),
        "losses are outside 0..20",
    ),
    "probe, endless losses": (
        PROBE_TYPE,
        statistics(lambda d: (torch.zeros(len(d) // 8).double() + 1e300).numpy().tobytes()),
        "losses are outside 0..20",
    ),
    "probe, other pairs": (PROBE_TYPE, counts(items=9), "counts 9 pairs, and counted 10 before"),
    "probe, no statistics": (PROBE_TYPE, without(STATISTICS_RECORD), "10 pairs but sends no statistics"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_reply_costs_its_own_client_only(name, tmp_path, monkeypatch, caplog):
    kind, twist, reason = HOSTILE[name]
    keepers = Keepers(FEW, monkeypatch)

    def answer(client: str, message: Message) -> list[Message]:
        (replied,) = keepers.answer(client, message)
        if client == "c005" and message.metadata.message_type == kind:
            twist(replied.content)
        return [replied]

    found, _ = find(tmp_path, FEW, answer)
    logged = [line for line in caplog.messages if "dropped c005" in line]
    assert len(logged) == 1
    assert re.search(reason, logged[0]), logged[0]
    honest = {client: states for client, states in FEW.items() if client != "c005"}
    alone, _ = find(tmp_path / "honest", honest, Keepers(honest, monkeypatch).answer)
    assert found.to_bytes() == alone.to_bytes()


def test_always_asking_for_the_view_is_no_endless_loop(tmp_path, monkeypatch, caplog):
    keepers = Keepers(FEW, monkeypatch)

    def answer(client: str, message: Message) -> list[Message]:
        (replied,) = keepers.answer(client, message)
        if client == "c005" and message.metadata.message_type == PROBE_TYPE:
            counts(items=0)(replied.content)
            without(STATISTICS_RECORD)(replied.content)
        return [replied]

    find(tmp_path, FEW, answer)
    assert "directions: the search starts again with 5 clients" in caplog.messages


def test_an_error_reply_is_one_line(tmp_path, monkeypatch, caplog):
    keepers = Keepers(FEW, monkeypatch)

    def answer(client: str, message: Message) -> list[Message]:
        if client == "c000":
            return [Message(Error(7, "Traceback\n  a\x1b[31m line"), reply_to=message)]
        return keepers.answer(client, message)

    find(tmp_path, FEW, answer)
    assert "directions: dropped c000: error reply (code 7): Traceback a?[31m line" in caplog.messages


def test_as_many_layers_as_there_are_can_be_edited(tmp_path, monkeypatch):
    found, _ = find(tmp_path, FEW, Keepers(FEW, monkeypatch).answer, edited=99)
    assert found.layers == tuple(range(LAYERS))
