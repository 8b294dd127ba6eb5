"""What a training has sent, summed up."""

from fedperfit.protocol.messages.ledger import Entry
from fedperfit.simulation.communication.units import traffic


def test_what_a_basis_is_made_of_is_sent_and_is_no_update() -> None:
    gradients = [Entry("pulls", 0, "ada", "up", 6000, 6200), Entry("pulls", 0, "ada", "down", 0, 90)]
    rounds = [Entry("train", n, "ada", way, 40, 240) for n in (1, 2, 3) for way in ("down", "up")]
    told = traffic([*gradients, *rounds])
    assert (told["updates"], told["update"]) == (3, {"payload": 40, "message": 240})
    assert told["up"] == {"payload": 6120, "message": 6920}
    assert told["down"] == {"payload": 120, "message": 810}
    assert traffic(gradients[1:])["update"] == {"payload": 0, "message": 0}
