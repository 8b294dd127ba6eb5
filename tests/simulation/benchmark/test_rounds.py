"""What is measured of a round: all replies admitted, bytes as they travel, both forms of updates."""

import pytest

from fedperfit.simulation.benchmark.parts.rounds import SHAPE, SHIFTS, VOTES, take


@pytest.mark.parametrize("form", [VOTES, SHIFTS])
def test_a_round_is_whole(form: str) -> None:
    figures = take(form, 5)
    assert figures["messages"] == 10
    numbers = len(SHAPE.layers) * SHAPE.rank * (14 + 1)
    assert figures["payload_up"] == (4 + 2 + numbers // 8 if form == VOTES else 24_834)
    assert figures["bytes_up"] > 5 * figures["payload_up"]
    assert figures["seconds"] > 0
