"""The way that suits a person best is chosen by what they wrote, and never by what it was fitted on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedperfit.edge.engine.examples import Example, encode
from fedperfit.edge.fitting.choice import Candidate, Intervention, choose, few, held_out, losses
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.tasks import Pair


def pairs(count):
    return [Pair(f"A tale of {n} kings and a storm\n", ("fantasy", "action")[n % 2]) for n in range(count)]


@pytest.fixture
def examples(base):
    return encode(base, pairs(8))


def moved(shape, size: float, **how) -> Intervention:
    shift = Shift.identity(shape, seed=0)
    with torch.no_grad():
        shift.b += size
    return Intervention([shift.requires_grad_(False)], **how)


def test_losses_are_those_of_each_example_alone(base, shape, examples):
    edit = Directions.of((2,), torch.randn(1, 192), torch.randn(1, 192))
    for intervention in (Intervention(), moved(shape, 3.0), moved(shape, 1.0, directions=edit)):
        together = losses(base, examples, intervention)
        for number, example in enumerate(examples):
            alone = losses(base, [example], intervention)
            torch.testing.assert_close(together[number], alone[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(
        losses(base, examples, moved(shape, 3.0)), losses(base, examples, Intervention())
    )


def test_a_bare_loss_is_the_models_own(base, examples):
    example = examples[0]
    row = torch.tensor([[*example.prompt, *example.target]])
    labels = torch.tensor([[-100] * len(example.prompt) + list(example.target)])
    with torch.no_grad():
        expected = base.model(input_ids=row, labels=labels).loss
    torch.testing.assert_close(losses(base, [example], Intervention())[0], expected, rtol=1e-4, atol=1e-5)


def test_shifts_act_one_after_another_or_all_on_the_same_state(base, shape, examples):
    two = [moved(shape, size).shifts[0] for size in (4.0, 8.0)]
    for shift in two:
        shift.W.mul_(2)
    in_turn, at_once = (losses(base, examples, Intervention(two, additive=a)) for a in (False, True))
    assert not torch.allclose(in_turn, at_once)


def test_losses_of_a_choice_are_means(base, shape, examples):
    intervention = {"far": moved(shape, 30.0), "none": Intervention(), "near": moved(shape, 1.0)}
    chosen = choose(base, examples, {name: Candidate.fixed(a) for name, a in intervention.items()}, "far")
    assert chosen.losses == {
        name: pytest.approx(float(losses(base, examples, one).mean()), rel=1e-5)
        for name, one in intervention.items()
    }


@pytest.mark.parametrize(
    ("usual", "other", "chosen"),
    [
        ([1.0, 1.0, 1.0, 1.0], [0.9, 0.9, 0.9, 0.9], "other"),
        ([1.0, 1.0, 1.0, 1.0], [0.1, 0.1, 0.1, 1.1], "other"),
        ([1.0, 1.0, 1.0, 1.0], [0.1, 0.1, 1.1, 1.1], "usual"),
        ([1.0, 1.0, 1.0, 1.0], [1.1, 1.1, 1.1, 1.1], "usual"),
        ([float("inf"), 1.0], [5.0, 5.0], "other"),
        ([1.0], [0.1], "usual"),
    ],
)
def test_another_way_must_be_clearly_better_than_the_usual_one(base, usual, other, chosen, monkeypatch):
    candidates = {
        "usual": Candidate.fixed(Intervention()),
        "other": Candidate.fixed(Intervention(additive=True)),
    }
    told = {False: torch.tensor(usual), True: torch.tensor(other)}
    monkeypatch.setattr("fedperfit.edge.fitting.choice._parts", lambda examples: [([], [])])
    monkeypatch.setattr(
        "fedperfit.edge.fitting.choice.losses",
        lambda base, examples, intervention: told[intervention.additive],
    )
    assert choose(base, [], candidates, "usual").name == chosen


def test_without_an_example_the_usual_way_is_taken(base):
    candidates = {"x": Candidate.fixed(Intervention()), "own": Candidate(lambda _: [], learns=True)}
    for usual in candidates:
        chosen = choose(base, [], candidates, usual)
        assert (chosen.name, chosen.losses) == (usual, {})


@pytest.mark.parametrize("count", [1, 2, 3, 8, 16, 17, 60])
def test_what_learns_is_never_judged_on_what_it_learned_from(base, count, monkeypatch):
    given_to_it: list[set[Example]] = []

    def learn(parts):
        given_to_it.extend(set(part) for part in parts)
        return [Intervention()] * len(parts)

    judged: list[set[Example]] = []

    def watching(base, examples, intervention):
        judged.append(set(examples))
        return torch.zeros(len(examples))

    monkeypatch.setattr("fedperfit.edge.fitting.choice.losses", watching)
    examples = encode(base, [*pairs(count), *pairs(count)[:1]])[: max(count, 1)]
    examples += examples[: count // 4]  # some twice
    candidates = {"fixed": Candidate.fixed(Intervention()), "own": Candidate(learn, learns=True)}
    found = choose(base, examples, candidates, "own")
    if count == 1:
        assert (found.name, found.losses) == ("own", {"fixed": 0.0})
        assert not given_to_it
        return
    half = len(judged) // 2
    assert judged[:half] == judged[half:], "both are judged on the same"
    for fitted, held in zip(given_to_it, judged[half:], strict=True):
        assert fitted
        assert held
        assert not fitted & held
    seen = set().union(*judged)
    assert seen == set(examples) if few(examples) else 3 <= len(seen) < len(set(examples)) / 2
    assert few(examples) or count > 16


def test_one_item_said_often_hides_no_other(base):
    examples = [encode(base, pairs(2))[n] for n in (0, 0, 0, 0, 1)]
    chosen = choose(
        base, examples, {"own": Candidate(lambda parts: [Intervention()] * len(parts), learns=True)}, "own"
    )
    expected = losses(base, list(dict.fromkeys(examples)), Intervention()).mean()
    assert chosen.losses == {"own": pytest.approx(float(expected), rel=1e-5)}


def test_a_way_that_fails_is_no_way(base, shape, examples):
    candidates = {
        "broken": Candidate.fixed(moved(shape, float("nan"))),
        "sound": Candidate.fixed(Intervention()),
    }
    chosen = choose(base, examples, candidates, "broken")
    assert (chosen.name, list(chosen.losses)) == ("sound", ["sound"])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), unique=True), st.integers(0, 20))
def test_an_example_stays_on_its_side(numbers, more):
    examples = [Example((a,), (b,)) for a, b in numbers]
    held, rest = held_out(examples[:more])
    held_later, rest_later = held_out(examples)
    assert set(held) <= set(held_later)
    assert set(rest) <= set(rest_later)
    assert not set(held_later) & set(rest_later)
