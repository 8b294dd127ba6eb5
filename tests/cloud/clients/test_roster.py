from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from tests.cloud.fake_grid import FakeClock, FakeGrid

from fedperfit.cloud.clients.roster import ClientStatus, Roster, roster
from fedperfit.protocol.messages.keys import STATUS_RECORD
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.system.errors import InputError

FINGERPRINT = "f" * 64
NODES = {11: "anna", 12: "ben", 13: "carl"}


def status(client: str, message: Message, **changes: object) -> list[Message]:
    fields: dict[str, object] = {
        "client": client,
        "fingerprint": FINGERPRINT,
        "task": "LaMP_3",
        "history": 4,
        "questions": 2,
        "shares-metrics": True,
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }
    return [Message(RecordDict({STATUS_RECORD: ConfigRecord(fields)}), reply_to=message)]


def call(folder: Path, grid: FakeGrid, expected: int = 3) -> Roster:
    return roster(
        grid,
        expected=expected,
        timeout=10.0,
        fingerprint=FINGERPRINT,
        task="LaMP_3",
        ledger=Ledger(folder / "ledger.jsonl"),
    )


def test_names_and_statuses(tmp_path: Path) -> None:
    found = call(tmp_path, FakeGrid(NODES, status, ["carl", "anna", "ben"]))
    assert found.names == NODES
    assert list(found.statuses) == ["anna", "ben", "carl"]
    assert found.statuses["ben"] == ClientStatus("ben", FINGERPRINT, "LaMP_3", 4, 2, True)
    entries = Ledger(tmp_path / "ledger.jsonl").entries()
    assert [(e.phase, e.client, e.direction) for e in entries] == [
        ("status", name, way) for name in ("anna", "ben", "carl") for way in ("down", "up")
    ]


BAD: dict[str, tuple[Callable[[Message], list[Message]], str]] = {
    "error": (lambda m: [Message(Error(3, "no agent"), reply_to=m)], "code 3.: no agent"),
    "silent": (lambda m: [], "no reply within 10 s"),
    "empty": (lambda m: [Message(RecordDict(), reply_to=m)], "record status is missing"),
    "wrong record": (
        lambda m: [Message(RecordDict({STATUS_RECORD: MetricRecord({"a": 1})}), reply_to=m)],
        "status is a MetricRecord",
    ),
    "other model": (lambda m: status("ben", m, fingerprint="0"), "its fingerprint is '0'"),
    "other task": (lambda m: status("ben", m, task="LaMP_4"), "its task is 'LaMP_4'"),
    "extra key": (lambda m: status("ben", m, secret="s"), "unknown key 'secret'"),
    "bool history": (lambda m: status("ben", m, history=True), "history is not of type int"),
    "negative": (lambda m: status("ben", m, questions=-1), "questions=-1"),
    "path": (lambda m: status("../ben", m), "not a client's name"),
    "newline": (lambda m: status("ben\n", m), "not a client's name"),
    "long": (lambda m: status("b" * 65, m), "not a client's name"),
    "bytes": (lambda m: status("ben", m, task=b"LaMP_3"), "task is not of type str"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_status_is_dropped_with_a_warning(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad, reason = BAD[name]
    grid = FakeGrid(NODES, lambda client, m: bad(m) if client == "ben" else status(client, m))
    assert call(tmp_path, grid).names == {11: "anna", 13: "carl"}
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("status: dropped node 12: ")
    assert pytest.approx(1) == sum(part in caplog.messages[0] for part in [reason.replace(".:", "):")])


def test_nobody_may_claim_a_name_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grid = FakeGrid(NODES, lambda client, m: status("anna" if client == "ben" else client, m))
    assert call(tmp_path, grid).names == {13: "carl"}
    assert "status: dropped node 12: anna is claimed twice" in caplog.messages


def test_too_few_nodes(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(InputError, match="3 of 4 clients connected within 10 s"):
        call(tmp_path, FakeGrid(NODES, status), expected=4)
    assert 10 <= clock.now < 11


def test_waits_for_the_last_node(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = FakeGrid(NODES, status)
    monkeypatch.setattr(grid, "get_node_ids", lambda: list(NODES)[: 1 + int(clock.now)])
    assert call(tmp_path, grid).names == NODES


def test_nobody_fits(tmp_path: Path) -> None:
    grid = FakeGrid(NODES, lambda client, m: status(client, m, task="LaMP_4"))
    with pytest.raises(InputError, match="none of 3 connected clients"):
        call(tmp_path, grid)
