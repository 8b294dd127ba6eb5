"""The log: chained, bounded, whole after kills and on a full disk."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedperfit.edge.audit import log as log_module
from fedperfit.edge.audit.files import events, latest, numbers, path_of
from fedperfit.edge.audit.log import AuditLog, Unrecorded
from fedperfit.edge.audit.verification import verify

ROOT = str(Path(__file__).parents[3])


def event(number: int, **more: object) -> dict[str, object]:
    return {"event": "sent", "call": "status", "bytes": number, **more}


def filled(folder: Path, lines: int, **bounds: int) -> AuditLog:
    log = AuditLog(folder, **bounds)
    for number in range(lines):
        log.add(event(number))
    return log


def test_it_goes_on_where_it_ended(tmp_path):
    filled(tmp_path, 3).close()
    log = filled(tmp_path, 2)
    assert [one["bytes"] for one in events(tmp_path)] == [0, 1, 2, 0, 1]
    assert log.totals.messages == {"status": [5, 4]}
    assert verify(tmp_path).problems == []
    assert [one["bytes"] for one in events(tmp_path, after=4)] == [0, 1]
    assert [one["bytes"] for one in latest(tmp_path, 3)] == [2, 0, 1]


def test_files_are_bounded_and_say_what_was_dropped(tmp_path):
    log = filled(tmp_path, 400, file_bytes=2_000, files=3)
    assert len(numbers(tmp_path)) == 3
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * 2_000
    verdict = verify(tmp_path)
    assert verdict.problems == verdict.gaps == []
    assert verdict.dropped_lines == verdict.first_line - 1 > 100
    assert verdict.end.number == verdict.dropped_lines + verdict.lines
    assert log.totals.messages == {"status": [400, 399 * 200]}
    log.close()
    again = AuditLog(tmp_path, file_bytes=2_000, files=3)
    assert again.totals == log.totals
    assert [one["bytes"] for one in latest(tmp_path, 30)] == list(range(370, 400))
    last = verdict.end.number
    assert [one["bytes"] for one in events(tmp_path, after=last - 2)] == [398, 399]


@pytest.mark.parametrize("change", ["digit", "dropped", "added", "swapped", "first file"])
def test_a_change_is_found(tmp_path, change):
    filled(tmp_path, 60, file_bytes=3_000, files=16).close()
    assert verify(tmp_path).problems == []
    first = path_of(tmp_path, 1)
    if change == "first file":
        first.unlink()
        assert "are missing" in verify(tmp_path).problems[0]
        return
    lines = first.read_bytes().splitlines(keepends=True)
    if change == "digit":
        lines[5] = lines[5].replace(b'"bytes":4', b'"bytes":9')
    elif change == "dropped":
        del lines[5]
    elif change == "added":
        lines.insert(5, lines[5])
    else:
        lines[5], lines[6] = lines[6], lines[5]
    first.write_bytes(b"".join(lines))
    assert f"{first.name}, line" in verify(tmp_path).problems[0]


def test_a_torn_line_is_cut_and_its_gap_recorded(tmp_path):
    filled(tmp_path, 3).close()
    path = path_of(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-5])
    log = AuditLog(tmp_path)
    log.add(event(7))
    verdict = verify(tmp_path)
    assert verdict.problems == []
    assert "was cut off" in verdict.gaps[0]
    assert [one["bytes"] for one in events(tmp_path) if one["event"] == "sent"] == [0, 1, 7]


def test_unreadable_lines_do_not_stop_it(tmp_path):
    filled(tmp_path, 3).close()
    path = path_of(tmp_path, 1)
    path.write_bytes(path.read_bytes() + b"no JSON\n[]\n")
    log = AuditLog(tmp_path)
    log.add(event(7))
    assert numbers(tmp_path) == [1, 2]
    verdict = verify(tmp_path)
    assert len(verdict.problems) == 2
    assert "cannot be read" in verdict.gaps[0]
    assert [one["bytes"] for one in events(tmp_path) if one["event"] == "sent"] == [0, 1, 2, 7]


def test_a_full_disk_refuses_and_it_lives_again(tmp_path, monkeypatch):
    log = filled(tmp_path, 3)
    room = [40]
    real = os.write

    def write(handle: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(room[0], len(data))
        room[0] -= taken
        return real(handle, bytes(data[:taken]))

    monkeypatch.setattr(log_module.os, "write", write)
    before = path_of(tmp_path, 1).read_bytes()
    for _ in range(3):
        with pytest.raises(Unrecorded, match="No space left"):
            log.add(event(9))
    assert path_of(tmp_path, 1).read_bytes() == before
    assert log.totals.messages == {"status": [3, 3]}
    monkeypatch.undo()
    log.add(event(4))
    assert verify(tmp_path).problems == []
    gap, sent = list(events(tmp_path))[-2:]
    assert (gap["event"], gap["failed_writes"], sent["bytes"]) == ("gap", 3, 4)


def test_it_starts_without_room(tmp_path, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log_module, "write_atomic", full)
    log = AuditLog(tmp_path / "audit")
    with pytest.raises(Unrecorded):
        log.add(event(1))
    monkeypatch.undo()
    log.add(event(2))
    assert [one["event"] for one in events(tmp_path / "audit")] == ["gap", "sent"]


_WRITER = """
import sys
from pathlib import Path
from fedperfit.edge.audit.log import AuditLog

log = AuditLog(Path(sys.argv[1]), file_bytes=4_000, files=4)
print("ready", flush=True)
while True:
    log.add({"event": "sent", "call": "status", "bytes": 1})
    print(log.totals.messages["status"][0], flush=True)
"""


def test_kills_at_random_moments_leave_a_chain_that_verifies(tmp_path):
    folder, acknowledged = tmp_path / "audit", 0
    for kill in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}/src"},
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.01 + 0.037 * kill)
            child.send_signal(signal.SIGKILL)
            told = [int(line) for line in child.stdout.read().split("\n")[:-1] if line.isdigit()]
        acknowledged = max([acknowledged, *told])
        verdict = verify(folder)
        assert verdict.problems == []
        log = AuditLog(folder, file_bytes=4_000, files=4)
        total = log.totals.messages.get("status", [0])[0]
        assert total in (acknowledged, acknowledged + 1), "what was acknowledged is on the disk"
        acknowledged = total
        log.close()
        assert len(numbers(folder)) <= 4
        assert not list(folder.glob(".*.part"))
    assert verify(folder).problems == []
    assert acknowledged > 20


def test_lines_are_for_their_owner_only(tmp_path):
    filled(tmp_path / "audit", 1)
    assert (tmp_path / "audit").stat().st_mode & 0o077 == 0
    assert path_of(tmp_path / "audit", 1).stat().st_mode & 0o077 == 0
    assert json.loads(path_of(tmp_path / "audit", 1).read_bytes().splitlines()[0])["event"] == "file"
