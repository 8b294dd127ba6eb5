"""What is measured of a round: all replies admitted, bytes as they travel, every form of updates."""

import pytest

from fedperfit.simulation.benchmark.parts.one_round import fastest_round
from fedperfit.simulation.benchmark.parts.rounds import FORMS


@pytest.mark.parametrize(
    ("form", "payload"), [("votes", 36), ("int8", 3_014), ("shifts", 24_834), ("large-shifts", 196_934)]
)
def test_a_round_is_whole(form: str, payload: int) -> None:
    figures = fastest_round(FORMS[form], 5, clients=7, times=2)
    assert figures["messages"] == 10
    assert figures["payload_up"] == payload
    assert figures["bytes_up"] > 5 * payload
    assert figures["seconds"] > 0
