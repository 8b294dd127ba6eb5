"""What is counted of the bytes between a machine and the cloud, over days and restarts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.edge.sandbox.test_uplink import connect, echo, sent_back

from fedperfit.edge.sandbox.traffic import Traffic, read_traffic
from fedperfit.edge.sandbox.uplink import Uplink

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_all_bytes_are_counted_each_way(tmp_path: Path) -> None:
    path, sent = tmp_path / "traffic.json", [b"x" * 70_000, b"y", b""]
    with (
        echo() as address,
        Traffic(path, lambda: NOON) as traffic,
        Uplink(tmp_path / "uplink", address, traffic.count),
    ):
        for data in sent:
            assert sent_back(connect(tmp_path / "uplink"), data) == data
        traffic.count(10, 0)
    total = sum(map(len, sent))
    assert read_traffic(path) == {"2026-03-01": (total + 10, total)}


def test_days_go_on_after_a_restart_and_old_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "traffic.json"
    for day in range(40):
        for _ in range(2):
            with Traffic(path, lambda day=day: NOON + timedelta(days=day)) as traffic:
                traffic.count(1, day)
    kept = read_traffic(path)
    assert list(kept.values()) == [(2, 2 * day) for day in range(9, 40)]
    assert list(kept)[-1] == (NOON + timedelta(days=39)).date().isoformat()


@pytest.mark.parametrize("text", ["", "[]", '{"2026-03-01": 3}', '{"2026-03-01": [1, "x"]}'])
def test_a_file_that_is_none_of_ours_is_begun_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "traffic.json"
    path.write_text(text)
    with Traffic(path, lambda: NOON) as traffic:
        traffic.count(5, 7)
    assert read_traffic(path) == {"2026-03-01": (5, 7)}


def test_a_file_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "traffic.json"
    path.mkdir()
    with Traffic(path, lambda: NOON) as traffic:
        traffic.count(5, 7)
    assert ["could not be noted" in told for told in caplog.messages] == [True]
