"""The way that suits a person best is chosen by what they wrote, and never by what it was fitted on."""

import pytest
import torch

from edge.choice import Acting, Way, choose, losses
from edge.examples import encode
from protocol.directions import Directions
from protocol.shift import Shift
from protocol.tasks import Pair

PAIRS = [Pair(f"A tale of {n} kings and a storm\n", tag) for n, tag in enumerate(("fantasy", "action") * 4)]


def moved(shape, size: float) -> Acting:
    shift = Shift.identity(shape, seed=0)
    with torch.no_grad():
        shift.b += size
    return Acting([shift.requires_grad_(False)])


def test_losses_are_those_of_each_pair_alone(base, shape):
    edit = Directions.of((2,), torch.randn(1, 192), torch.randn(1, 192))
    for acting in (Acting(), moved(shape, 3.0), Acting(moved(shape, 1.0).shifts, edit)):
        together = losses(base, PAIRS, acting)
        for number, pair in enumerate(PAIRS):
            alone = losses(base, [pair], acting)
            torch.testing.assert_close(together[number], alone[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(losses(base, PAIRS, moved(shape, 3.0)), losses(base, PAIRS, Acting()))


def test_a_bare_loss_is_the_models_own(base):
    (example,) = encode(base, PAIRS[:1])
    row = torch.tensor([[*example.prompt, *example.target]])
    labels = torch.tensor([[-100] * len(example.prompt) + list(example.target)])
    with torch.no_grad():
        expected = base.model(input_ids=row, labels=labels).loss
    torch.testing.assert_close(losses(base, PAIRS[:1], Acting())[0], expected, rtol=1e-4, atol=1e-5)


def test_the_lowest_loss_is_chosen(base, shape):
    acting = {"far": moved(shape, 30.0), "none": Acting(), "near": moved(shape, 1.0)}
    ways = {name: Way(lambda _, a=a: a, learns=False) for name, a in acting.items()}
    means = {name: float(losses(base, PAIRS, a).mean()) for name, a in acting.items()}
    assert choose(base, PAIRS, ways, "far") == min(means, key=lambda name: means[name])
    assert len(set(means.values())) == 3
    assert choose(base, [], ways, "near") == "near"


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_what_learns_is_never_judged_on_what_it_learned_from(base, shape, count, monkeypatch):
    given: list[set[str]] = []

    def learn(pairs):
        given.append({pair.prompt for pair in pairs})
        return Acting()

    judged: list[set[str]] = []
    real = losses

    def watching(base, pairs, acting):
        judged.append({pair.prompt for pair in pairs})
        return real(base, pairs, acting)

    monkeypatch.setattr("edge.choice.losses", watching)
    choose(base, PAIRS[:count], {"own": Way(learn, learns=True), "x": Way(lambda _: Acting(), False)}, "x")
    if count == 1:
        assert not given
        return
    for fitted, held in zip(given, judged, strict=False):
        assert fitted
        assert not fitted & held
    assert set().union(*judged[: len(given)]) == {pair.prompt for pair in PAIRS[:count]}
