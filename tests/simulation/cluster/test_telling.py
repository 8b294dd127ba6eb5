"""Progress in a file is a line a minute, in a terminal the status alone."""

import io

import pytest
from rich.console import Console

from fedperfit.simulation.cluster import telling
from fedperfit.simulation.cluster.telling import teller


@pytest.mark.parametrize(
    ("terminal", "at_once", "told"),
    [(False, False, ["2", "4"]), (False, True, ["0", "2", "4"]), (True, True, [])],
)
def test_a_file_gets_a_line_a_minute(
    terminal: bool, at_once: bool, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(telling.time, "monotonic", lambda: now)
    console = Console(file=io.StringIO(), force_terminal=terminal)
    status = console.status("begun")  # which is not started, and writes nothing itself
    tell = teller(console, status, at_once=at_once)
    for number in range(5):
        tell(f"{number}")
        assert status.status == f"{number}"
        now += 40
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().split() == told
