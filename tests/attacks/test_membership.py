"""Was this item used? Told with certainty of an update of one item, and less and less of more."""

from pathlib import Path

from tests.attacks.membership import membership

from fedperfit.protocol.model.base_model import load


def test_the_more_items_the_less_an_update_tells_of_one(tmp_path: Path) -> None:
    base = load("embedded", device="cpu", dtype="float32")
    told = membership(base, tmp_path, people=1, history=48, sizes=[1, 24])
    assert told[1] > 0.99, "the positive control: without a least number of items"
    assert told[24] < 0.8, "with the least number that a policy has by default"
