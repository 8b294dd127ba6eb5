"""Clients that go silent, come back, begin anew, or say the same thing twice."""

from pathlib import Path

from flwr.app import Message
from tests.cloud.fake_grid import (
    FakeGrid,
    federation,
    flat,
    honest,
    items_of,
    perturbed,
    reply_content,
)

from fedperfit.cloud.rounds.aggregation import aggregate
from fedperfit.protocol.messages.keys import ROUND_KEY, SETTINGS_RECORD, SHIFT_KEY, SHIFT_RECORD
from fedperfit.protocol.shift.packing import unpack

CLIENTS = dict(enumerate(("anna", "ben", "carl", "dora"), start=1))


def round_of(message: Message) -> int:
    number = message.content[SETTINGS_RECORD][ROUND_KEY]
    assert isinstance(number, int)
    return number


def test_a_client_that_is_silent_for_a_round_comes_back(tmp_path: Path) -> None:
    def answer(client: str, message: Message) -> list[Message]:
        return [] if client == "ben" and round_of(message) == 2 else honest(client, message)

    job = federation(tmp_path, FakeGrid(CLIENTS, answer), rounds=3)
    shift = job.train(CLIENTS.values(), lambda report: None)
    assert ["ben" in report.admitted for report in job.history] == [True, False, True]
    assert job.history[1].dropped == {"ben": "no reply within 5 s"}
    before = job.checkpoints._read(job.checkpoints.path(2)).shift
    updates = [(perturbed(before, f"{name}/3"), min(items_of(name), 6)) for name in sorted(CLIENTS.values())]
    assert flat(shift) == flat(aggregate([(update, float(items)) for update, items in updates]))


def test_the_same_update_twice_counts_once(tmp_path: Path) -> None:
    def twice(client: str, message: Message) -> list[Message]:
        return honest(client, message) * (2 if client == "ben" else 1)

    plain, doubled = (
        federation(tmp_path / name, FakeGrid(CLIENTS, answer)).train(CLIENTS.values(), lambda report: None)
        for name, answer in (("plain", honest), ("twice", twice))
    )
    assert flat(plain) == flat(doubled)


def test_last_rounds_update_sent_again_is_refused(tmp_path: Path) -> None:
    """A client restored from a backup, or one that repeats itself."""
    kept: dict[str, Message] = {}

    def answer(client: str, message: Message) -> list[Message]:
        content = reply_content(client, message)
        if client == "ben" and round_of(message) > 1:
            content[SHIFT_RECORD] = kept["ben"].content[SHIFT_RECORD]
        kept[client] = Message(content, reply_to=message)
        return [kept[client]]

    job = federation(tmp_path, FakeGrid(CLIENTS, answer))
    job.train(CLIENTS.values(), lambda report: None)
    assert "ben" in job.history[0].admitted
    assert job.history[1].dropped == {"ben": "the header's round is 0, expected 1"}


def test_a_client_without_memory_is_as_good_as_any(tmp_path: Path) -> None:
    """A round's request is all that a client needs to know; nothing is kept at the edge between rounds."""
    seen: list[tuple[int, int]] = []

    def answer(client: str, message: Message) -> list[Message]:
        _, header = unpack(message.content[SHIFT_RECORD][SHIFT_KEY].data)
        seen.append((round_of(message), header.round))
        return honest(client, message)

    job = federation(tmp_path, FakeGrid(CLIENTS, answer), rounds=3)
    job.train(CLIENTS.values(), lambda report: None)
    assert set(seen) == {(1, 0), (2, 1), (3, 2)}
    assert job.history[0].admitted == job.history[2].admitted == sorted(CLIENTS.values())
