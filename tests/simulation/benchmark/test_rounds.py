"""What is measured of a round: all replies admitted, bytes as they travel, every form of updates."""

from pathlib import Path
from statistics import median
from typing import Any

import pytest

from fedperfit.simulation.benchmark.parts import rounds
from fedperfit.simulation.benchmark.parts.one_round import measured_round
from fedperfit.simulation.benchmark.parts.rounds import CELLS, FORMS
from fedperfit.simulation.benchmark.record import Record


@pytest.mark.parametrize(
    ("form", "payload"), [("votes", 36), ("int8", 3_014), ("shifts", 24_834), ("large-shifts", 196_934)]
)
def test_a_round_is_whole(form: str, payload: int) -> None:
    figures = measured_round(FORMS[form], 5, clients=7)
    assert figures["messages"] == 10
    assert figures["payload_up"] == payload
    assert figures["bytes_up"] > 5 * payload
    assert figures["seconds"] > 0


def test_the_median_seconds_of_a_small_round_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, int]] = []

    def apart(form: str, replies: int) -> dict[str, Any]:
        taken.append((form, replies))
        return {"seconds": 9.0 - len(taken) % 7, "peak_bytes": len(taken)}

    monkeypatch.setattr(rounds, "_apart", apart)
    record = Record(tmp_path / "benchmark.json", {}, lambda name, figures: None, {})
    rows = {(row["form"], row["replies"]): row for row in rounds.run(record)}
    assert taken == [cell[:2] for cell in CELLS]
    for cell, row in rows.items():
        places = [place for place, other in enumerate(taken, start=1) if other == cell]
        assert len(places) == (3 if cell[1] <= 1_000 else 1)
        assert row["seconds"] == median(9.0 - place % 7 for place in places)
        assert row["peak_bytes"] == places[0]
    assert rounds.run(record) == list(rows.values()), "from the file"
