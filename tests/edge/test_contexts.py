"""The context cache against the path that recomputes everything."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moved_shift import moved
from test_training import examples_of

from edge import contexts as contexts_module
from edge import training as training_module
from edge.contexts import build_contexts, context_length
from edge.examples import Example
from edge.personal import PersonalShift
from edge.training import batch_loss, fit
from protocol.positions import Positions


def with_prefix(examples: list[Example], prefix: int) -> list[Example]:
    shared = tuple(range(10, 10 + prefix))
    return [Example((1, *shared, *e.prompt[1:]), e.target) for e in examples]


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 6),
    prefix=st.integers(0, 12),
    last=st.integers(1, 25),
    additive=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_losses_and_gradients_are_those_of_recomputing(base, shape, seed, count, prefix, last, additive):
    shape = replace(shape, positions=Positions(first=0, last=last))
    examples = with_prefix(examples_of(count, seed), prefix)
    rows = random.Random(seed).sample(range(count), count)
    shifts = [moved(shape, seed), moved(shape, seed + 1)]
    contexts = build_contexts(base, [example.prompt for example in examples], shape.positions)
    results = []
    for cached in (None, contexts):
        loss = batch_loss(base, shifts, [examples[row] for row in rows], rows, cached, additive=additive)
        gradients = torch.autograd.grad(loss, list(shifts[1].parameters()))
        results.append([loss.detach(), *gradients])
    for slow, fast in zip(*results, strict=True):
        assert torch.allclose(slow, fast, rtol=1e-4, atol=1e-5 * slow.abs().max().clamp(min=1e-3))


def test_a_fit_is_that_of_recomputing(base, shape, training, monkeypatch):
    examples = with_prefix(examples_of(12), 9)
    fitted = []
    for build in (build_contexts, lambda *arguments: None):
        monkeypatch.setattr(training_module, "build_contexts", build)
        shift = PersonalShift.start(shape, seed=0)
        fit(base, shift, examples, training, order="x")
        fitted.append(shift)
    for name in ("R", "W", "b"):
        fast, slow = (getattr(shift, name) for shift in fitted)
        assert (fast - slow).abs().max() < 1e-4


def test_first_positions_leave_no_context():
    assert context_length(range(50), Positions.parse("f7+l7")) == 0
    assert context_length(range(50), Positions.parse("l7")) == 43
    assert context_length(range(5), Positions.parse("l7")) == 0


def test_over_the_budget_nothing_is_kept(base, shape, monkeypatch, caplog):
    monkeypatch.setattr(contexts_module, "BUDGET_BYTES", 1000)
    prompts = [example.prompt for example in with_prefix(examples_of(4), 9)]
    with caplog.at_level("INFO"):
        assert build_contexts(base, prompts, shape.positions) is None
    assert "recomputing" in caplog.text


@pytest.mark.parametrize("prompts", [[(1, 2, 3)], [(1, 5, 6, 7, 8, 9, 10, 11, 12)]])
def test_one_prompt(base, shape, prompts):
    examples = [Example(prompt, (4, 2)) for prompt in prompts]
    contexts = build_contexts(base, prompts, shape.positions)
    shift = moved(shape, 0)
    fast, slow = (batch_loss(base, [shift], examples, [0], c).item() for c in (contexts, None))
    assert fast == pytest.approx(slow, abs=1e-5)
