"""The rows in a frozen basis against slower ways to the same numbers."""

from dataclasses import replace

import pytest
import torch
from tests.simulation.compare.small_comparison import started

from fedperfit.edge.engine.people.whitened import Whitened
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.edge.fitting.choice import Intervention, losses
from fedperfit.protocol.people.prior import estimated_prior
from fedperfit.protocol.people.scatter import Scatter
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.compare.building_blocks import coordinates
from fedperfit.simulation.compare.building_blocks.coordinates import (
    FLOOR,
    PASSES,
    clients_of,
    others_basis,
    voted,
)
from fedperfit.simulation.compare.building_blocks.shifts import settings
from fedperfit.simulation.compare.methods.perfit_basis import InBasis, Sixteen, UnderPrior

VALUES = {
    "layers": "with-last",
    "positions": "l7",
    "rank": 4,
    "columns": 8,
    "learning-rate": 1e-2,
    "personal-epochs": 2,
    "personal-learning-rate": 1e-2,
    "strength": 0.3,
}
NUMBERS = 2 * (4 * 8 + 4)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return started(tmp_path_factory.mktemp("in-basis") / "run", world_history=6)


@pytest.fixture(scope="module")
def basis(context, people) -> Basis:
    return others_basis(context, context.collective_histories(people.others), VALUES)


def test_one_round_is_each_clients_own_training_and_a_vote(context, people, basis, monkeypatch):
    """With one item a step and one client of one item, scales and weights differ."""
    first, *rest = context.collective_histories(people.others)
    others = [replace(first, items=first.items[-1:], answered=[]), *rest]
    context = replace(context, batch_size=1)
    monkeypatch.setattr(coordinates, "ROUNDS", 1)
    after = voted(context, others, basis, 0.011)
    changes, weights = [], []
    for name, pairs in clients_of(context, others):
        own = Coordinates.zero(basis)
        fit([FitJob(own, context.encode(pairs), f"0/{name}/0")], settings(context, 1, 0.011), context.items)
        changes.append(own.numbers)
        weights.append(float(len(pairs)))
    step = torch.stack([change.abs().mean().bfloat16().float() for change in changes]).median()
    signs = torch.stack([torch.where(change > 0, 1.0, -1.0) for change in changes])
    share = torch.tensor(weights) / sum(weights)
    assert len(set(weights)) > 1
    torch.testing.assert_close(after.numbers, step * (share @ signs))


def test_a_person_moves_nothing_but_coordinates(context, people):
    method = InBasis(context, VALUES)
    method.learn(people.others)
    fitted = method.fit(people.targets[0].history)
    own, basis = fitted[1], method.people.basis
    found = Coordinates.of_shift(basis, own)
    assert found is not None
    assert float(found.numbers.abs().max()) > 1e-4
    assert method.parameters(fitted) == NUMBERS == basis.numbers
    empty = method.fit(replace(people.targets[0].history, items=[]))
    assert empty[1] is None
    assert method.parameters(empty) == 0
    assert method.bytes_down() > 4 * NUMBERS + 4 * 2 * (4 + 8) * context.base.card.hidden_size


def test_under_a_prior_a_person_is_the_likeliest(context, people):
    """No other point near by has less of the losses' sum and half the strength times |z|^2 together."""
    method = UnderPrior(context, VALUES)
    method.learn(people.others)
    history = people.targets[0].history
    examples = context.encode(context.pairs(history))
    prior = method.people.prior
    factor = method.people.factor().double()

    def badness(shift) -> float:
        own = Coordinates.of_shift(method.people.basis, shift)
        z = torch.linalg.solve(factor, own.numbers.double())
        each = losses(context.base, examples, Intervention([method.shared, shift]))
        tokens = torch.tensor([float(len(example.target)) for example in examples])
        return float(each @ tokens) + prior.strength / 2 * float(z.square().sum())

    best = method.fit(history)[1]
    numbers = Coordinates.of_shift(method.people.basis, best).numbers
    least = badness(best)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        step = (factor @ torch.randn(NUMBERS, generator=generator).double()).float()
        other = Coordinates.of(method.people.basis, numbers + 0.1 * step)
        assert badness(other.shift()) > least
    alone = Whitened.start(method.people)
    fit([FitJob(alone, examples, "")], settings(context, 1, 1.0), context.items)
    assert badness(alone.coordinates().shift()) > least + 1e-4


def test_the_prior_is_what_the_others_own_fits_show(context, people):
    method = UnderPrior(context, VALUES)
    method.learn(people.others)
    basis = method.people.basis
    fits = []
    for name, pairs in clients_of(context, context.collective_histories(people.others)):
        own = Coordinates.zero(basis)
        job = FitJob(own, context.encode(pairs), f"0/{name}/whole")
        fit([job], settings(context, PASSES, 1e-2), context.items, decay_rate=True)
        fits.append(own.numbers)
    scatter = Scatter.of(basis.digest, torch.stack(fits))
    expected = estimated_prior(scatter.total, scatter.count, floor=FLOOR, strength=0.3, items=1)
    known = method.people
    torch.testing.assert_close(known.prior.factor(), expected.factor(), rtol=1e-3, atol=1e-5)


def test_few_numbers_are_few_and_one_other_is_no_prior(context, people):
    method = Sixteen(context, VALUES)
    method.learn(people.others)
    fitted = method.fit(people.targets[0].history)
    assert 1 <= method.parameters(fitted) <= len(people.others) - 1 < 16 < NUMBERS
    method.learn(people.others[:1])
    alone = method.fit(people.targets[0].history)
    assert method.parameters(alone) == NUMBERS
    basis = InBasis(context, VALUES)
    basis.learn(people.others[:1])
    questions = people.targets[0].questions
    assert method.answer(alone, questions) == basis.answer(basis.fit(people.targets[0].history), questions)


def test_others_without_items_are_an_error(context, people):
    nobody = [replace(other, items=[], answered=[]) for other in people.others]
    with pytest.raises(InputError, match="a basis is made of other people's items"):
        InBasis(context, VALUES).learn(nobody)


def test_a_scatter_is_made_once_for_all_strengths(context, people, monkeypatch):
    UnderPrior(context, VALUES).learn(people.others)
    monkeypatch.setattr(coordinates, "fit", lambda *args, **kwargs: pytest.fail("fitted again"))
    UnderPrior(context, VALUES | {"strength": 7.0}).learn(people.others)
