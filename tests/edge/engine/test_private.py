"""The private fit against slow gradients of each item, and its promise against fits with and without one."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.edge.engine.slow_training import slow_loss
from tests.edge.random_items import examples_of

from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.people.private import NoisySteps, Private, fit_privately
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.system.errors import InputError

SILENT = 1e-12
"""A multiplier that leaves the sum as it is."""


@pytest.fixture(scope="module")
def basis(shape) -> Basis:
    return random_basis(shape, 3, task="LaMP_2M", fingerprint="f", seed=0)


@pytest.fixture(scope="module")
def cache(base) -> ItemCache:
    return ItemCache(base)


def moved(basis: Basis, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(basis.numbers, generator=torch.Generator().manual_seed(seed))


def mean_of(cache, basis, examples, *, clip, noise=SILENT, start=None, steps=1, secret=None) -> torch.Tensor:
    """What one step of rate 1 moves against: the mean clipped gradient, with its noise."""
    start = moved(basis) if start is None else start
    how = NoisySteps(steps, 1.0, noise, clip)
    person = Private(Coordinates.of(basis, start), how, **({"secret": secret} if secret else {}))
    fit_privately(person, examples, cache)
    return (start - person.coordinates.numbers).double()


def slow_gradient(base, basis, example) -> torch.Tensor:
    """By whole rows and the chain rule: W = R + A P."""
    shift = Coordinates.of(basis, moved(basis)).shift()
    dW, db = torch.autograd.grad(slow_loss(base, [shift], [example]), [shift.W, shift.b])
    return torch.cat([(dW @ basis.P.mT).flatten(), db.flatten()]).double()


@pytest.mark.parametrize("clip", [1e3, 0.05])
def test_a_step_goes_along_the_mean_of_each_items_clipped_gradient(base, cache, basis, clip):
    examples = examples_of(5, 1, prefix=9)
    slow = [slow_gradient(base, basis, example) for example in examples]
    assert all((gradient.norm() > 0.05) and (gradient.norm() < 1e3) for gradient in slow)
    expected = sum(gradient / max(float(gradient.norm()), clip) for gradient in slow) / len(examples)
    found = mean_of(cache, basis, examples, clip=clip)
    assert float((found - expected).norm()) < 1e-3 * float(expected.norm()) + 1e-6


def test_more_items_than_run_side_by_side(cache, basis, monkeypatch):
    examples = examples_of(7, 2, prefix=9)
    whole = mean_of(cache, basis, examples, clip=0.1)
    monkeypatch.setattr("fedperfit.edge.engine.people.private._SIDE_BY_SIDE", 3)
    assert torch.allclose(mean_of(cache, basis, examples, clip=0.1), whole, atol=1e-5)


@given(seed=st.integers(0, 50), place=st.integers(0, 4), scale=st.sampled_from([0.1, 3.0, 30.0]))
@settings(max_examples=8, deadline=None)
def test_no_item_changes_the_sum_by_more_than_the_largest_norm(cache, basis, seed, place, scale):
    examples = examples_of(5, seed, prefix=9)
    fewer = [example for number, example in enumerate(examples) if number != place]
    start = scale * moved(basis, seed)
    with_it, without = (
        len(part) * mean_of(cache, basis, part, clip=1e-4, start=start) for part in (examples, fewer)
    )
    change = float((with_it - without).norm())
    assert 0.9 < change < 1 + 1e-3 * scale, "one item of a clipped gradient; float32 stores what is compared"


def test_every_fit_draws_its_own_noise(cache, basis):
    examples = examples_of(3, 1, prefix=9)
    first, second = (mean_of(cache, basis, examples, clip=1.0, noise=1.0) for _ in range(2))
    assert float((first - second).norm()) > 0.1
    secret = bytes(32)
    first, second = (mean_of(cache, basis, examples, clip=1.0, noise=1.0, secret=secret) for _ in range(2))
    assert torch.equal(first, second)


def found_mu(cache, basis, pasts, noise: float) -> float:
    """Estimate how far fits on two pasts lie apart, in deviations, along the line between their means."""
    sides = [
        torch.stack(
            [
                mean_of(cache, basis, past, clip=1e-4, noise=noise, steps=2, secret=bytes([number] * 32))
                for number in range(60)
            ]
        )
        for past in pasts
    ]
    direction = sides[0].mean(0) - sides[1].mean(0)
    ours, theirs = (side @ (direction / direction.norm()) for side in sides)
    return float((ours.mean() - theirs.mean()) / (0.5 * (ours.var() + theirs.var())).sqrt())


def test_many_fits_with_and_without_an_item_differ_by_what_is_promised(cache, basis):
    """To an auditor who knows everything but one item; exchanging it is removing and adding one."""
    one, other = examples_of(2, 3, prefix=9)
    pasts, promised = ((one, other), (one, one)), NoisySteps(2, 1.0, 1.0, 1e-4).mu
    assert 0.5 < found_mu(cache, basis, pasts, noise=1.0) < 2 * promised + 0.4
    assert found_mu(cache, basis, pasts, noise=0.125) > 3 * promised, "an eighth of the noise gives it away"


def test_it_stays_where_it_is(basis):
    person = Private(Coordinates.zero(basis), NoisySteps(1, 1.0, 1.0, 1.0))
    with pytest.raises(TypeError):
        pickle.dumps(person)
    assert "tensor" not in repr(person)


def test_no_items_is_one_line(cache, basis):
    person = Private(Coordinates.zero(basis), NoisySteps(1, 1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="no history"):
        fit_privately(person, [], cache)
