from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from tests.cloud.fake_grid import FakeClock, FakeGrid, packed_array

from fedperfit.cloud.clients.exchange import Exchange
from fedperfit.protocol.messages.keys import SETTINGS_RECORD, SHIFT_KEY, SHIFT_RECORD
from fedperfit.protocol.messages.ledger import Ledger

NODES = {5: "anna", 6: "ben", 7: "carl"}


def content(size: int = 10) -> RecordDict:
    return RecordDict(
        {
            SHIFT_RECORD: ArrayRecord({SHIFT_KEY: packed_array(bytes(size))}),
            SETTINGS_RECORD: ConfigRecord({"round": 1}),
        }
    )


def echo(client: str, message: Message) -> list[Message]:
    return [Message(message.content, reply_to=message)]


def ask(exchange: Exchange, deadline: float = 30.0, enough: int | None = None):
    contents = {name: content() for name in NODES.values()}
    return exchange.ask(
        contents, "train.contribute", phase="train", round=1, deadline=deadline, enough=enough
    )


def test_yields_replies_in_the_order_of_arrival_and_sorts_the_ledger(tmp_path: Path) -> None:
    exchange = Exchange(FakeGrid(NODES, echo, ["carl", "anna", "ben"]), Ledger(tmp_path / "l"), NODES)
    assert [client for client, _ in ask(exchange)] == ["carl", "anna", "ben"]
    entries = exchange.ledger.entries()
    assert entries == exchange.last == sorted(entries, key=lambda e: (e.client, e.direction))
    assert len(entries) == 6


def test_stops_at_the_deadline(tmp_path: Path, clock: FakeClock) -> None:
    grid = FakeGrid(NODES, lambda client, message: echo(client, message) if client == "ben" else [])
    exchange = Exchange(grid, Ledger(tmp_path / "l"), NODES)
    assert [client for client, _ in ask(exchange, deadline=7.5)] == ["ben"]
    assert clock.now == pytest.approx(7.5)
    assert [e.client for e in exchange.last if e.direction == "up"] == ["ben"]


@pytest.mark.parametrize(
    ("took", "enough", "seconds"), [(0, 2, 30), (100, 2, 200), (100, 3, 3600), (3590, 2, 3600)]
)
def test_once_enough_have_replied_the_others_have_as_long_again(
    tmp_path: Path, clock: FakeClock, took: float, enough: int, seconds: float
) -> None:
    class LateGrid(FakeGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            return super().pull_messages(message_ids) if clock.now >= took else []

    grid = LateGrid(NODES, lambda client, message: [] if client == "ben" else echo(client, message))
    exchange = Exchange(grid, Ledger(tmp_path / "l"), NODES)
    assert sorted(client for client, _ in ask(exchange, 3600.0, enough)) == ["anna", "carl"]
    assert clock.now == pytest.approx(seconds, abs=5)


def test_a_late_reply_of_an_earlier_ask_is_ignored(tmp_path: Path) -> None:
    grid = FakeGrid(NODES, lambda client, message: [])
    exchange = Exchange(grid, Ledger(tmp_path / "l"), NODES)
    assert list(ask(exchange, deadline=1.0)) == []
    late = [Message(message.content, reply_to=message) for message in grid.pushed]
    grid.answer = lambda client, message: [*late, *echo(client, message)]
    replies = dict(ask(exchange))
    assert set(replies) == set(NODES.values())
    assert not set(map(id, replies.values())) & set(map(id, late))


def test_closing_writes_what_was_exchanged(tmp_path: Path) -> None:
    exchange = Exchange(FakeGrid(NODES, echo), Ledger(tmp_path / "l"), NODES)
    with closing(ask(exchange)) as replies:
        next(replies)
    assert [(e.client, e.direction) for e in exchange.ledger.entries()] == [
        ("anna", "down"),
        ("anna", "up"),
        ("ben", "down"),
        ("carl", "down"),
    ]


def test_a_message_that_cannot_be_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = FakeGrid(NODES, echo)
    push = grid.push_messages

    def refuse(messages: list[Message]) -> list[str | None]:
        return [None] if messages[0].metadata.dst_node_id == 6 else list(push(messages))

    monkeypatch.setattr(grid, "push_messages", refuse)
    exchange = Exchange(grid, Ledger(tmp_path / "l"), NODES)
    assert {client for client, _ in ask(exchange)} == {"anna", "carl"}
    assert caplog.messages == ["ben: the message could not be sent"]
    assert "ben" not in {e.client for e in exchange.last}


def test_polls_gently(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = clock.sleep
    monkeypatch.setattr(clock, "sleep", lambda seconds: (pauses.append(seconds), sleep(seconds)))
    exchange = Exchange(FakeGrid(NODES, lambda client, message: []), Ledger(tmp_path / "l"), NODES)
    list(ask(exchange, deadline=30.0))
    assert pauses[0] == 0.05
    assert max(pauses) == 1.0
    assert len(pauses) < 45


def test_the_infrastructure_failing_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = FakeGrid(NODES, echo)

    def broken(message_ids: list[str]) -> list[Message]:
        raise ConnectionError("SuperLink is gone")

    monkeypatch.setattr(grid, "pull_messages", broken)
    with pytest.raises(ConnectionError):
        list(ask(Exchange(grid, Ledger(tmp_path / "l"), NODES)))
