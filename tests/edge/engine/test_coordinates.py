"""Training in a frozen basis, against the same maths written out with torch's autograd and AdamW."""

import random
from dataclasses import replace

import pytest
import torch
from tests.edge.engine.slow_training import slow_loss
from tests.edge.moved_shift import moved
from tests.edge.random_items import examples_of

from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.layer_gradients import state_moments
from fedperfit.edge.engine.slab import CoordinateSlab
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.protocol.model.layers import changing
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Pair


def basis_of(shape, seed=0) -> Basis:
    made = random_basis(shape, 6, task="LaMP_2M", fingerprint="f" * 64, seed=seed)
    return Basis(shape, made.task, made.fingerprint, made.R.double(), made.P.double())


def start(basis: Basis, seed: int) -> Coordinates:
    numbers = torch.randn(basis.numbers, generator=torch.Generator().manual_seed(seed))
    return Coordinates.of(basis, 0.05 * numbers.double())


def slow_fit(base, own, examples, settings, *, frozen, additive, order) -> None:
    """W = R + A P made anew in every step, so that autograd alone finds the gradients of A and b."""
    A, b = own.A.clone().requires_grad_(), own.b.clone().requires_grad_()
    optimizer = torch.optim.AdamW([A, b], lr=settings.learning_rate, weight_decay=settings.weight_decay)
    rng = random.Random(order)
    for _ in range(settings.epochs):
        shuffled = rng.sample(examples, len(examples))
        for begin in range(0, len(shuffled), settings.batch_size):
            shift = Shift(own.shape, R=own.basis.R, W=own.basis.R, b=b.detach())
            del shift.W, shift.b
            shift.W, shift.b = own.basis.R + A @ own.basis.P, b
            optimizer.zero_grad()
            batch = shuffled[begin : begin + settings.batch_size]
            slow_loss(base, [*frozen, shift], batch, additive=additive).backward()
            torch.nn.utils.clip_grad_norm_([A, b], settings.clip_norm)
            optimizer.step()
    with torch.no_grad():
        own.A.copy_(A)
        own.b.copy_(b)


@pytest.mark.parametrize(("positions", "additive", "clip"), [("l7", False, 0.05), ("f2+l3", True, 100.0)])
def test_users_side_by_side_end_where_autograd_ends_alone(
    precise, shape, training, positions, additive, clip
):
    shape = replace(shape, positions=Positions.parse(positions))
    basis = basis_of(shape)
    training = training.replace(learning_rate=1e-2, batch_size=3, clip_norm=clip)
    frozen = [moved(shape, 5).requires_grad_(False).double()]
    jobs = [FitJob(start(basis, n), examples_of(size, n), str(n)) for n, size in enumerate((5, 2, 7))]
    fit(jobs, training, ItemCache(precise), frozen=frozen, additive=additive)
    for n, job in enumerate(jobs):
        alone = start(basis, n)
        slow_fit(precise, alone, job.examples, training, frozen=frozen, additive=additive, order=str(n))
        torch.testing.assert_close(job.shift.numbers, alone.numbers, rtol=1e-5, atol=1e-7)


def test_a_slab_shifts_as_the_plain_shifts_of_its_coordinates_do(shape):
    basis = random_basis(shape, 6, task="LaMP_2M", fingerprint="f" * 64, seed=0)
    users = [Coordinates.of(basis, torch.randn(basis.numbers)) for _ in range(3)]
    slab, hidden = CoordinateSlab.of(users, torch.device("cpu")), torch.randn(3, 4, 192)
    for layer in range(2):
        expected = torch.stack([user.shift().delta(layer, h) for user, h in zip(users, hidden, strict=True)])
        torch.testing.assert_close(slab.delta(layer, hidden), expected, rtol=1e-4, atol=1e-4)


def test_coordinates_in_two_bases_are_not_trained_together(base, shape, training):
    jobs = [FitJob(start(basis_of(shape, seed), 0), examples_of(3), "a") for seed in (0, 1)]
    with pytest.raises(InputError, match="one basis"):
        fit(jobs, training, ItemCache(base))


def test_state_moments_are_those_of_the_states_in_one_place(precise):
    pairs = [Pair(f"A tale of {n} kings and {'a storm ' * n}\n", "fantasy") for n in range(1, 5)]
    positions, states = Positions.parse("l3"), {1: [], 4: []}
    found = state_moments(precise, pairs, positions, [1, 4], batch_size=3)
    for example in encode(precise, pairs):
        row, last = torch.tensor([[*example.prompt, *example.target[:-1]]]), len(example.prompt)

        def keep(layer, hidden, end=last):
            states[layer].extend(hidden[0, end - 3 : end])
            return hidden

        with torch.no_grad(), changing(precise.model, [1, 4], keep):
            precise.model(row)
    for index, layer in enumerate((1, 4)):
        whole = torch.stack(states[layer])
        torch.testing.assert_close(found.mean[index], whole.mean(0))
        torch.testing.assert_close(found.covariance[index], torch.cov(whole.T, correction=0))
