"""Fits under a prior over people, against the same objective written out with torch's autograd and Adam."""

import pickle
from dataclasses import replace

import pytest
import torch
from tests.edge.engine.slow_training import slow_loss
from tests.edge.engine.test_coordinates import basis_of
from tests.edge.moved_shift import moved
from tests.edge.random_items import examples_of

from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.people.whitened import Whitened, WhitenedSlab
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.protocol.people.people import People
from fedperfit.protocol.people.prior import Prior
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError


def people_of(shape, numbers: int = 0, strength: float = 0.5) -> People:
    basis = basis_of(shape)
    generator = torch.Generator().manual_seed(1)
    directions = torch.linalg.qr(torch.randn(basis.numbers, 5, generator=generator)).Q.T.contiguous()
    deviations = torch.tensor([0.9, 0.5, 0.4, 0.2, 0.1])
    return People(basis, Prior(directions, deviations, 0.05, strength, 32, numbers))


def job_of(people: People, size: int, seed: int) -> FitJob[Whitened]:
    examples = examples_of(size, seed)
    tokens = sum(len(example.target) for example in examples)
    return FitJob(Whitened.start(people, tokens), examples, "", [list(range(size))] * 4)


def slow_fit(base, job, settings, *, frozen) -> torch.Tensor:
    """Minimise the sum of the losses and strength / 2 |y|^2, with theta = L y made anew in every step.

    Steps are taken in z with y = c z, which makes the strength beside z a tenth.
    """
    people = job.shift.people
    c = (0.1 / people.prior.strength) ** 0.5
    z = job.shift.z.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=settings.learning_rate)
    for _ in range(4):
        theta = people.factor() @ (c * z)
        basis = people.basis
        layers, rank = len(basis.shape.layers), basis.shape.rank
        A, b = theta.split([layers * rank * basis.columns, layers * rank])
        shift = Shift(basis.shape, R=basis.R, W=basis.R, b=b.view(layers, rank).detach())
        del shift.W, shift.b
        shift.W = basis.R + A.view(layers, rank, -1) @ basis.P
        shift.b = b.view(layers, rank)
        optimizer.zero_grad()
        total = job.shift.tokens * slow_loss(base, [*frozen, shift], job.examples, additive=False)
        objective = total + people.prior.strength / 2 * (c * z).square().sum()
        (objective / job.shift.tokens).backward()
        optimizer.step()
    return z.detach()


@pytest.mark.parametrize(("positions", "numbers"), [("l7", 0), ("f2+l3", 3)])
def test_people_side_by_side_end_where_autograd_ends_alone(precise, shape, training, positions, numbers):
    people = people_of(replace(shape, positions=Positions.parse(positions)), numbers)
    training = training.replace(learning_rate=0.1, clip_norm=1e9)
    frozen = [moved(people.basis.shape, 5).requires_grad_(False).double()]
    jobs = [job_of(people, size, n) for n, size in enumerate((5, 2))]
    expected = [slow_fit(precise, job, training, frozen=frozen) for job in jobs]
    fit(jobs, training, ItemCache(precise), frozen=frozen)
    for job, z in zip(jobs, expected, strict=True):
        assert float(z.abs().max()) > 0.1
        torch.testing.assert_close(job.shift.z, z, rtol=1e-5, atol=1e-7)


def test_a_slab_shifts_as_the_coordinates_that_z_stands_for(shape):
    people = people_of(shape)
    users = [Whitened(people, 3, torch.randn_like(job_of(people, 2, 0).shift.z)) for _ in range(3)]
    slab, hidden = WhitenedSlab.of(users, torch.device("cpu")), torch.randn(3, 4, 192).double()
    for layer in range(2):
        expected = [u.coordinates().shift().delta(layer, h) for u, h in zip(users, hidden, strict=True)]
        torch.testing.assert_close(slab.delta(layer, hidden), torch.stack(expected))
        torch.testing.assert_close(slab.some([1]).delta(layer, hidden[1:2]), expected[1][None])


def test_a_strong_prior_keeps_people_at_the_collective_shift(precise, shape, training):
    weak, strong = (job_of(people_of(shape, 0, strength), 4, 1) for strength in (1e-3, 100.0))
    for job in (weak, strong):
        fit([job], training.replace(learning_rate=0.1, clip_norm=1.0), ItemCache(precise))
    far, near = (float(job.shift.coordinates().numbers.norm()) for job in (weak, strong))
    assert near < 0.5 * far


def test_it_is_not_handed_out_and_not_mixed(precise, shape, training):
    job = job_of(people_of(shape), 2, 0)
    slab = WhitenedSlab.of([job.shift], torch.device("cpu"))
    for held in (job.shift, slab):
        with pytest.raises(TypeError, match="do not leave the edge"):
            pickle.dumps(held)
        assert "tensor" not in repr(held)
    with pytest.raises(InputError, match="in one basis"):
        fit([job, job_of(people_of(shape), 2, 1)], training, ItemCache(precise))
