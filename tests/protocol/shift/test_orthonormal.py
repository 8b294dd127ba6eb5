"""R keeps orthonormal rows, and training it this way reaches what pyreft's parametrization reaches."""

import pytest
import torch

from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift, newton_schulz

RATES = (1e-4, 3e-3, 1e-2)


def identity(rank, hidden, seed=0) -> Shift:
    shape = ShiftShape(layers=(0,), rank=rank, hidden_size=hidden, positions=Positions(0, 1))
    return Shift.identity(shape, seed=seed)


def distance(R) -> float:
    """||R R^T - I||_inf, the largest row sum, in double precision."""
    R = R.detach().double()
    return (R @ R.mT - torch.eye(R.shape[-2])).abs().sum(dim=-1).max().item()


def train(shift, inputs, targets, rate, steps, *, watch=lambda: None) -> float:
    """Least squares as `edge.engine.training` trains; returns the last loss."""
    optimizer = torch.optim.AdamW(
        [{"params": [shift.R], "weight_decay": 0.0}, {"params": [shift.W, shift.b], "weight_decay": 1e-2}],
        lr=rate,
    )
    for _ in range(steps):
        loss = (inputs + shift.delta(0, inputs) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        shift.project_gradient()
        optimizer.step()
        shift.retract()
        watch()
    return (inputs + shift.delta(0, inputs) - targets).square().mean().item()


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("rank", "hidden"), [(1, 32), (4, 32), (32, 32), (8, 96), (32, 192)])
def test_rows_stay_orthonormal_through_a_thousand_steps(rate, rank, hidden):
    shift = identity(rank, hidden)
    start = shift.R.detach().clone()
    worst = []
    inputs, targets = torch.randn(2, 8, hidden)
    train(shift, inputs, targets, rate, 1_000, watch=lambda: worst.append(distance(shift.R)))
    assert max(worst) < 1e-5
    assert (shift.R - start).abs().max() > 0.01 or rank == hidden


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("hidden", [192, 4096])
def test_rows_survive_the_largest_step_adam_can_take(rate, hidden):
    """A gradient of rank one moves every entry by the rate, all in one direction of the rows."""
    shift = identity(32, hidden)
    shift.R.grad = torch.outer(torch.randn(32), torch.randn(hidden))[None]
    shift.project_gradient()
    with torch.no_grad():
        shift.R -= rate * shift.R.grad.sign()
    shift.retract()
    assert distance(shift.R) < 1e-5


@pytest.mark.parametrize("scale", [1e-2, 0.5, 3.0, 1e3])
def test_retraction_is_the_polar_factor(scale):
    R = scale * (identity(8, 40).R.detach() + 0.05 * torch.randn(8, 40))
    U, _, Vt = torch.linalg.svd(R.double(), full_matrices=False)
    torch.testing.assert_close(newton_schulz(R).double(), U @ Vt, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_retraction_of_a_hopeless_matrix_ends(value):
    assert newton_schulz(torch.full((2, 3, 5), value)).shape == (2, 3, 5)


def test_each_layer_is_retracted_by_itself():
    R = torch.cat([identity(4, 16, seed).R.detach() for seed in range(3)]) * torch.tensor([1, 1.1, 1e6]).view(
        3, 1, 1
    )
    torch.testing.assert_close(newton_schulz(R), torch.cat([newton_schulz(layer[None]) for layer in R]))


def test_projected_gradient_is_tangent():
    shift = identity(4, 24)
    shift.R.grad = torch.randn(1, 4, 24)
    normal = shift.R.grad.clone()
    shift.project_gradient()
    inner = shift.R.grad @ shift.R.mT
    torch.testing.assert_close(inner, -inner.mT)
    normal -= shift.R.grad  # what was taken away is S R with S symmetric
    S = normal @ shift.R.mT
    torch.testing.assert_close(S, S.mT)
    torch.testing.assert_close(normal, S @ shift.R.detach())


def test_identity_start_is_no_saddle():
    shift = identity(4, 24)
    inputs, targets = torch.randn(2, 16, 24)
    assert shift.delta(0, inputs).abs().max() == 0
    (inputs + shift.delta(0, inputs) - targets).square().mean().backward()
    shift.project_gradient()
    for tensor in (shift.R, shift.W, shift.b):
        assert tensor.grad.norm() > 1e-3


def test_identity_is_seeded():
    assert torch.equal(identity(4, 24, seed=3).R, identity(4, 24, seed=3).R)
    assert not torch.equal(identity(4, 24, seed=3).R, identity(4, 24, seed=4).R)


def regression(hidden, seed):
    """Inputs and targets that a shift of low rank explains only in part."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(64, hidden, generator=generator)
    rows = torch.randn(4, hidden, generator=generator) / hidden**0.5
    probe = torch.randn(hidden, 4, generator=generator) / 2
    return inputs, inputs + 2 * torch.tanh(0.3 * inputs @ probe) @ rows


def pyreft_loss(inputs, targets, rank, rate, steps, seed, *, decay_rotation) -> float:
    """Train with pyreft's own module from the same start, with the same data, optimizer and steps."""
    interventions = pytest.importorskip("pyreft.interventions")
    start = identity(rank, inputs.shape[1], seed)
    module = interventions.LoreftIntervention(
        embed_dim=inputs.shape[1], low_rank_dimension=rank, dtype=torch.float32
    )
    with torch.no_grad():
        module.rotate_layer.weight = start.R[0].T.clone()
        module.learned_source.weight.copy_(start.W[0])
        module.learned_source.bias.zero_()
    torch.testing.assert_close(module(inputs), inputs, atol=1e-5, rtol=0)
    rotation = {"params": module.rotate_layer.parameters(), "weight_decay": 1e-2 if decay_rotation else 0.0}
    source = {"params": module.learned_source.parameters(), "weight_decay": 1e-2}
    optimizer = torch.optim.AdamW([rotation, source], lr=rate)
    for _ in range(steps):
        loss = (module(inputs) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (module(inputs) - targets).square().mean().item()


@pytest.mark.parametrize("rate", [3e-3, 1e-2])
@pytest.mark.parametrize(("rank", "hidden", "seed"), [(4, 32, 0), (4, 32, 1), (8, 24, 2)])
def test_training_reaches_a_loss_no_worse_than_pyreft(rate, rank, hidden, seed):
    inputs, targets = regression(hidden, seed)
    start = (inputs - targets).square().mean().item()
    ours = train(identity(rank, hidden, seed), inputs, targets, rate, 1_000)
    assert ours < 0.1 * start
    assert ours <= 1.001 * pyreft_loss(inputs, targets, rank, rate, 1_000, seed, decay_rotation=False)


def test_weight_decay_on_the_rotation_stops_pyreft_but_not_us():
    """Decaying every parameter, as a plain AdamW does, sets the parametrized R to zero."""
    inputs, targets = regression(32, 0)
    start = (inputs - targets).square().mean().item()
    assert pyreft_loss(inputs, targets, 4, 3e-3, 50, 0, decay_rotation=True) > 0.99 * start
    assert train(identity(4, 32), inputs, targets, 3e-3, 50) < 0.9 * start
