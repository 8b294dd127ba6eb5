import pytest
from fake_grid import FakeClock


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """No test of this folder waits."""
    clock = FakeClock()
    monkeypatch.setattr("cloud.exchange.time", clock)
    monkeypatch.setattr("cloud.roster.time", clock)
    return clock
