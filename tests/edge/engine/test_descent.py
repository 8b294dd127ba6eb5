"""L-BFGS by single passes, against objectives whose lowest point is known."""

import math

import torch

from fedperfit.edge.engine.people.descent import Descent


def descended(objective, size: int, passes: int, first: float = 1.0) -> Descent:
    descent = Descent(size, first)
    for _ in range(passes):
        trial = descent.trial.clone().requires_grad_()
        value = objective(trial)
        (gradient,) = torch.autograd.grad(value, trial)
        descent.tell(float(value.detach()), gradient)
    return descent


def test_a_long_valley_is_walked_to_its_lowest_point():
    scales = torch.logspace(0, 3, 12, dtype=torch.double)
    lowest = torch.linspace(-2, 2, 12, dtype=torch.double)
    descent = descended(lambda z: (scales * (z - lowest).square()).sum() / 2, 12, 60)
    torch.testing.assert_close(descent.point, lowest, rtol=0, atol=1e-3)


def test_a_logistic_loss_under_a_prior_needs_few_passes():
    features = torch.randn(8, 20, generator=torch.Generator().manual_seed(0), dtype=torch.double)

    def objective(z):
        return torch.nn.functional.softplus(-features @ z).sum() + 0.1 / 2 * z.square().sum()

    end = descended(objective, 20, 15)
    slope = torch.autograd.functional.jacobian(objective, end.point)
    assert float(slope.norm()) < 1e-2
    assert end.value < descended(objective, 20, 4).value < float(objective(torch.zeros_like(end.point)))


def test_what_is_not_finite_is_stepped_back_from():
    def objective(z):
        return z.square().sum() - z.sum() if float(z.abs().max()) < 0.6 else z.sum() * math.inf

    descent = descended(objective, 3, 12, first=100.0)
    torch.testing.assert_close(descent.point, torch.full((3,), 0.5, dtype=torch.double))
    nowhere = descended(lambda z: z.sum() * math.nan, 3, 3)
    assert (nowhere.value, float(nowhere.point.norm())) == (math.inf, 0.0)


def test_the_value_never_rises():
    def objective(z):
        return (1 - z[0]).square() + 100 * (z[1] - z[0].square()).square()

    values = [descended(objective, 2, passes).value for passes in range(1, 60)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-3
