"""How often an idle SuperNode asks for work."""

import pytest

from fedperfit.edge.supernode_app import Rest

FLOWERS = 3.0
"""Flower's own pause, in seconds."""


class Idle:
    """Time of a machine on which nothing else happens."""

    def __init__(self) -> None:
        self.now, self.looks = 0.0, [0.0]
        self.rest = Rest(lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def look(self, came: bool = False) -> None:
        self.rest(came)
        self.now += FLOWERS
        self.looks.append(self.now)


def test_for_five_minutes_after_a_message_it_asks_as_flower_does() -> None:
    idle = Idle()
    for _ in range(100):
        idle.look()
    assert idle.now == 100 * FLOWERS
    idle.look()
    assert idle.now > 101 * FLOWERS


def test_a_day_without_work_is_a_tenth_of_the_looks_and_work_wakes_it() -> None:
    idle = Idle()
    while idle.now < 86_400:
        idle.look()
    assert len(idle.looks) < 86_400 / FLOWERS / 9
    pauses = [after - before for before, after in zip(idle.looks, idle.looks[1:], strict=False)]
    assert max(pauses) == pytest.approx(30)
    idle.look(came=True)
    before = idle.now
    for _ in range(50):
        idle.look()
    assert idle.now == pytest.approx(before + 50 * FLOWERS)
