"""What is said of the time that is left, from times that are given."""

import pytest

from fedperfit.simulation.cluster.pace import Pace, progress, span, time_left


def test_units_are_reckoned_by_those_of_their_kind():
    pace = Pace(["heavy"] * 2 + ["light"] * 100, workers=2)
    told = [pace.took("heavy", 600.0), pace.took("heavy", 800.0), pace.took("light", 2.0)]
    assert told == [
        {"done": 1, "total": 102, "seconds": 600.0, "left": 300.0, "least": True},
        {"done": 2, "total": 102, "seconds": 800.0, "left": None, "least": True},
        {"done": 3, "total": 102, "seconds": 2.0, "left": 99.0, "least": False},
    ]
    assert [time_left(event) for event in told] == ["more than 5 min left", "", "about 99 s left"]


def test_the_last_unit_leaves_nothing():
    assert Pace(["one"], workers=4).took("one", 3.0)["left"] == 0.0


def test_a_unit_that_is_done_twice_leaves_no_less_than_nothing():
    pace = Pace(["one", "two"], workers=1)
    pace.took("one", 3.0)
    assert pace.took("one", 3.0)["left"] is None


def test_progress_is_one_line_with_and_without_an_estimate():
    start = {"event": "start", "total": 4}
    assert progress(start, 3.0) == "0 of 4 after 3 s  "
    event = {"done": 1, "total": 4, "last": "oppu main", "left": 7200.0, "least": False}
    assert progress(event, 600.0) == "1 of 4 after 10 min, about 2.0 h left  oppu main"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h")])
def test_a_time_is_told_in_a_unit_that_suits_it(seconds, text):
    assert span(seconds) == text
