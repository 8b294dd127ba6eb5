"""One step of several users, whatever is kept of their items, against one user at a time in whole rows."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.edge.engine.slow_training import slow_loss
from tests.edge.moved_shift import moved
from tests.edge.random_items import examples_of

from fedperfit.edge.engine.items import CachePlan, ItemCache
from fedperfit.edge.engine.paths.path import Path
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.edge.engine.step import StepRow, step_losses
from fedperfit.protocol.shift.positions import Positions

BUDGETS = {CachePlan.CONTEXTS: 1 << 30, CachePlan.STATES: 150_000, CachePlan.NOTHING: 0}


def distance(fast, slow) -> float:
    """Of two lists of tensors, relative to the second."""
    ours, theirs = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (fast, slow))
    return ((ours - theirs).norm() / theirs.norm()).item()


@given(
    seed=st.integers(0, 10_000),
    users=st.integers(1, 5),
    prefix=st.integers(0, 12),
    positions=st.sampled_from(["l1", "l7", "l25", "f7+l7", "f2+l3", "f3"]),
    layers=st.sampled_from([(0,), (3, 4), (2, 5), (7,), (0, 7)]),
    plan=st.sampled_from(list(CachePlan)),
    shared=st.integers(0, 1),
    additive=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_losses_and_gradients_are_those_of_each_user_alone(
    base, precise, shape, seed, users, prefix, positions, layers, plan, shared, additive
):
    """In fp64 to 1e-6 (transformers keeps norms in fp32); in fp32 to what two batchings differ by."""
    assume(positions != "f3" or layers != (7,))
    shape = replace(shape, layers=layers, positions=Positions.parse(positions))
    frozen = [moved(shape, seed + 100 + n).requires_grad_(False) for n in range(shared)]
    shifts = [moved(shape, seed + user) for user in range(users)]
    draw = random.Random(seed)
    examples = [examples_of(draw.randint(1, 4), seed + user, prefix=prefix) for user in range(users)]
    for model, dtype, tolerance in ((base, torch.float32, 1e-4), (precise, torch.float64, 1e-6)):
        for shift in [*frozen, *shifts]:
            shift.to(dtype)
        slab = Slab.of(shifts, model.device, train=True)
        cache = ItemCache(model, BUDGETS.get(plan))
        path = Path.BARE if plan is CachePlan.ALONE else Path.FAST
        prepared = cache.prepare(examples, layers[0], shape.positions, path=path)
        rows = [StepRow(user, e, prepared.items[e]) for user, own in enumerate(examples) for e in own]
        losses = step_losses(model, Stack(frozen, slab, additive), prepared, rows)
        gradients = torch.autograd.grad(losses.sum(), slab.tensors)
        for user, shift in enumerate(shifts):
            loss = slow_loss(model, [*frozen, shift], examples[user], additive=additive)
            alone = torch.autograd.grad(loss, [shift.R, shift.W, shift.b])
            assert losses[user].item() == pytest.approx(loss.item(), rel=tolerance / 10)
            assert distance([gradient[user] for gradient in gradients], alone) < tolerance


def test_a_loss_is_that_of_the_target_tokens_alone(base, shape):
    """The oracle itself: one example at a time, no padding, log-probabilities summed by hand."""
    examples, shift = examples_of(5), moved(shape, 1)
    total, count = 0.0, 0
    for example in examples:
        loss = slow_loss(base, [shift], [example]).item()
        total, count = total + loss * len(example.target), count + len(example.target)
    assert slow_loss(base, [shift], examples).item() == pytest.approx(total / count, abs=1e-5)
