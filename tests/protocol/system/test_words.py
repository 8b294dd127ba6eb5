"""Tests of numbers in sentences."""

from fedperfit.protocol.system.words import count_of


def test_one_is_told_as_one() -> None:
    assert [count_of(number, "item") for number in (0, 1, 2, 1200)] == [
        "0 items",
        "1 item",
        "2 items",
        "1,200 items",
    ]
    assert [count_of(number, "person", "people") for number in (1, 2)] == ["1 person", "2 people"]
