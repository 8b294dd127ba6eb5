"""The rows in a frozen basis against the cloud's own rounds, and against slower ways to the same numbers."""

from dataclasses import replace

import pytest
import torch
from tests.simulation.compare.small_comparison import started

from fedperfit.cloud.rounds.coordinate_form import CoordinateForm
from fedperfit.cloud.rounds.settings import FederationSettings
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
    outcome,
    voted,
)
from fedperfit.simulation.compare.building_blocks.shifts import settings
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.compare.method import registry
from fedperfit.simulation.data.participants import Participants

METHODS = registry()
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
def context(state) -> MethodContext:
    return state.context("LaMP_2M", 0)


@pytest.fixture(scope="module")
def people(state) -> Participants:
    return state.participants("LaMP_2M")


@pytest.fixture(scope="module")
def basis(context, people) -> Basis:
    return others_basis(context, context.collective_histories(people.others), VALUES)


def test_votes_are_counted_as_a_cloud_counts_them(basis):
    """The same change as of rounds whose clients sent these coordinates."""
    generator = torch.Generator().manual_seed(3)
    scales = torch.tensor([0.1, 0.4, 0.2, 3.0, 0.3])[:, None]
    sent = torch.randn(5, NUMBERS, generator=generator).sign() * scales
    items = torch.tensor([2.0, 24.0, 7.0, 1.0, 5.0])
    updates = [_Sent(change, int(n)) for change, n in zip(sent, items, strict=True)]
    rounds = CoordinateForm(basis, FederationSettings(rounds=1, dtype="sign"))
    combined = rounds.combine(updates, Coordinates.zero(basis), 1)  # type: ignore[arg-type]
    torch.testing.assert_close(outcome(sent, items), combined.numbers)


class _Sent:
    def __init__(self, change: torch.Tensor, items: int) -> None:
        self.change, self.items, self.numbers = change, items, len(change)


def test_one_round_is_each_clients_own_training_and_a_vote(context, people, basis, monkeypatch):
    others = context.collective_histories(people.others)
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
    torch.testing.assert_close(after.numbers, step * (share @ signs))


def test_a_person_moves_nothing_but_coordinates(context, people):
    method = METHODS["perfit-basis"](context, VALUES)
    method.learn(people.others)
    fitted = method.fit(people.targets[0].history)
    own, basis = fitted[1], method.people.basis  # type: ignore[attr-defined]
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
    method = METHODS["perfit-prior"](context, VALUES)
    method.learn(people.others)
    history = people.targets[0].history
    examples = context.encode(context.pairs(history))
    prior = method.people.prior  # type: ignore[attr-defined]
    factor = method.people.factor().double()  # type: ignore[attr-defined]

    def badness(shift) -> float:
        own = Coordinates.of_shift(method.people.basis, shift)  # type: ignore[attr-defined]
        z = torch.linalg.solve(factor, own.numbers.double())  # type: ignore[union-attr]
        each = losses(context.base, examples, Intervention([method.shared, shift]))  # type: ignore[attr-defined]
        tokens = torch.tensor([float(len(example.target)) for example in examples])
        return float(each @ tokens) + prior.strength / 2 * float(z.square().sum())

    best = method.fit(history)[1]
    numbers = Coordinates.of_shift(method.people.basis, best).numbers  # type: ignore[attr-defined, union-attr]
    least = badness(best)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        step = (factor @ torch.randn(NUMBERS, generator=generator).double()).float()
        other = Coordinates.of(method.people.basis, numbers + 0.1 * step)  # type: ignore[attr-defined]
        assert badness(other.shift()) > least
    alone = Whitened.start(method.people)  # type: ignore[attr-defined]
    fit([FitJob(alone, examples, "")], settings(context, 1, 1.0), context.items)
    assert badness(alone.coordinates().shift()) > least + 1e-4


def test_the_prior_is_what_the_others_own_fits_show(context, people):
    method = METHODS["perfit-prior"](context, VALUES)
    method.learn(people.others)
    basis = method.people.basis  # type: ignore[attr-defined]
    fits = []
    for name, pairs in clients_of(context, context.collective_histories(people.others)):
        own = Coordinates.zero(basis)
        job = FitJob(own, context.encode(pairs), f"0/{name}/whole")
        fit([job], settings(context, PASSES, 1e-2), context.items, decay_rate=True)
        fits.append(own.numbers)
    scatter = Scatter.of(basis.digest, torch.stack(fits))
    expected = estimated_prior(scatter.total, scatter.count, floor=FLOOR, strength=0.3, items=1)
    known = method.people  # type: ignore[attr-defined]
    torch.testing.assert_close(known.prior.factor(), expected.factor(), rtol=1e-3, atol=1e-5)


def test_few_numbers_are_few_and_one_other_is_no_prior(context, people):
    method = METHODS["perfit-sixteen"](context, VALUES)
    method.learn(people.others)
    fitted = method.fit(people.targets[0].history)
    assert 1 <= method.parameters(fitted) <= len(people.others) - 1 < 16 < NUMBERS
    method.learn(people.others[:1])
    alone = method.fit(people.targets[0].history)
    assert method.parameters(alone) == NUMBERS
    basis = METHODS["perfit-basis"](context, VALUES)
    basis.learn(people.others[:1])
    questions = people.targets[0].questions
    assert method.answer(alone, questions) == basis.answer(basis.fit(people.targets[0].history), questions)


def test_others_without_items_are_an_error(context, people):
    nobody = [replace(other, items=[], answered=[]) for other in people.others]
    with pytest.raises(InputError, match="a basis is made of other people's items"):
        METHODS["perfit-basis"](context, VALUES).learn(nobody)


def test_a_scatter_is_made_once_for_all_strengths(context, people, monkeypatch):
    METHODS["perfit-prior"](context, VALUES).learn(people.others)
    monkeypatch.setattr(coordinates, "fit", lambda *args, **kwargs: pytest.fail("fitted again"))
    METHODS["perfit-prior"](context, VALUES | {"strength": 7.0}).learn(people.others)
