import pytest
from tests.cloud.fake_grid import FakeClock


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """No test of this folder waits."""
    clock = FakeClock()
    monkeypatch.setattr("fedperfit.cloud.clients.clock.time", clock)
    monkeypatch.setattr("fedperfit.cloud.clients.roster.time", clock)
    return clock
