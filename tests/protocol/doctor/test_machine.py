"""Each check of a machine tells what it is shown: programs, namespaces, disk and clock."""

import shutil
import subprocess
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from fedperfit.protocol.doctor import machine
from fedperfit.protocol.doctor.findings import Verdict

Usage = namedtuple("Usage", "total used free")


def test_a_missing_program_is_wrong_and_its_package_named(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_SYSTEM_PATHS", "")
    missing = machine.program("nginx", "nginx-light", str(tmp_path))
    assert missing.verdict is Verdict.WRONG
    assert "nginx-light" in missing.advice
    (tmp_path / "nginx").touch(mode=0o700)
    assert machine.program("nginx", "nginx-light", str(tmp_path)).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("bubblewrap 0.8.0", Verdict.OK),
        ("bubblewrap 0.11.2", Verdict.OK),
        ("bubblewrap 0.4.1", Verdict.WRONG),
        ("", Verdict.WRONG),
    ],
)
def test_an_old_bubblewrap_is_wrong(monkeypatch, said, verdict):
    monkeypatch.setattr(machine, "_output", lambda command: said)
    assert machine.bubblewrap_version().verdict is verdict


def test_refused_namespaces_are_told_with_the_reason(monkeypatch):
    done = SimpleNamespace(returncode=1, stderr="bwrap: No permissions to create new namespace\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    told = machine.namespaces()
    assert told.verdict is Verdict.WRONG
    assert "No permissions" in told.said
    assert told.advice
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0, stderr=""))
    assert machine.namespaces().verdict is Verdict.OK


@pytest.mark.parametrize(
    ("free", "verdict"), [(100 << 30, Verdict.OK), (1 << 30, Verdict.WARNING), (1 << 20, Verdict.WRONG)]
)
def test_a_full_disk_is_told_before_it_is_full(tmp_path, monkeypatch, free, verdict):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(200 << 30, 0, free))
    assert machine.disk(tmp_path).verdict is verdict


@pytest.mark.parametrize(
    ("ahead", "synchronized", "verdict"),
    [
        (timedelta(), "yes", Verdict.OK),
        (timedelta(), "", Verdict.OK),
        (timedelta(), "no", Verdict.WARNING),
        (timedelta(hours=2), "yes", Verdict.WRONG),
    ],
)
def test_a_clock_that_is_behind_or_set_by_nobody_is_told(monkeypatch, ahead, synchronized, verdict):
    monkeypatch.setattr(machine, "_output", lambda command: synchronized)
    (told,) = machine.clock(datetime.now(UTC) + ahead)
    assert told.verdict is verdict
