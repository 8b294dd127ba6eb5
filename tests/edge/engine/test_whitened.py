"""Fits under a prior over people, against the same objective minimised by torch's L-BFGS."""

import pickle
from dataclasses import replace

import pytest
import torch
from tests.edge.engine.slow_training import slow_loss
from tests.edge.engine.test_coordinates import basis_of
from tests.edge.moved_shift import moved
from tests.edge.random_items import examples_of

from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.people.whitened import Whitened
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
    return FitJob(Whitened.start(people), examples_of(size, seed), "")


def lowest(base, job, *, frozen) -> tuple[torch.Tensor, float]:
    """Minimise the sum of the losses and strength / 2 |z|^2 with torch's L-BFGS, theta = L z made anew.

    Returns:
        The z, and the mean loss there.
    """
    people = job.shift.people
    basis, tokens = people.basis, sum(len(example.target) for example in job.examples)
    layers, rank = len(basis.shape.layers), basis.shape.rank
    z = job.shift.z.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([z], max_iter=60, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def mean_loss() -> torch.Tensor:
        A, b = (people.factor() @ z).split([layers * rank * basis.columns, layers * rank])
        shift = Shift(basis.shape, R=basis.R, W=basis.R, b=b.view(layers, rank).detach())
        del shift.W, shift.b
        shift.W = basis.R + A.view(layers, rank, -1) @ basis.P
        shift.b = b.view(layers, rank)
        return slow_loss(base, [*frozen, shift], job.examples, additive=False)

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        value = tokens * mean_loss() + people.prior.strength / 2 * z.square().sum()
        value.backward()
        return value

    optimizer.step(objective)
    return z.detach(), float(mean_loss())


@pytest.mark.parametrize(("positions", "numbers"), [("l7", 0), ("f2+l3", 3)])
def test_people_side_by_side_end_where_the_objective_is_lowest(precise, shape, training, positions, numbers):
    people = people_of(replace(shape, positions=Positions.parse(positions)), numbers)
    frozen = [moved(people.basis.shape, 5).requires_grad_(False).double()]
    jobs = [job_of(people, size, n) for n, size in enumerate((5, 2))]
    expected = [lowest(precise, job, frozen=frozen) for job in jobs]
    fits = fit(jobs, training, ItemCache(precise), frozen=frozen)
    for job, done, (z, loss) in zip(jobs, fits, expected, strict=True):
        assert float(z.norm()) > 0.1
        assert float((job.shift.z - z).norm()) < 0.05 * float(z.norm())
        assert done.loss == pytest.approx(loss, rel=1e-2)


def test_a_strong_prior_keeps_people_at_the_collective_shift(precise, shape, training):
    weak, strong = (job_of(people_of(shape, 0, strength), 4, 1) for strength in (1e-3, 100.0))
    for job in (weak, strong):
        fit([job], training, ItemCache(precise))
    far, near = (float(job.shift.coordinates().numbers.norm()) for job in (weak, strong))
    assert near < 0.5 * far


def test_it_is_not_handed_out_and_not_mixed(precise, shape, training):
    job = job_of(people_of(shape), 2, 0)
    with pytest.raises(TypeError, match="do not leave the edge"):
        pickle.dumps(job.shift)
    assert "tensor" not in repr(job.shift)
    with pytest.raises(InputError, match="in one basis"):
        fit([job, job_of(people_of(shape), 2, 1)], training, ItemCache(precise))
