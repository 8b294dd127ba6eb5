import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.edge.engine.slow_training import slow_fit, slow_loss
from tests.edge.moved_shift import moved
from tests.edge.random_items import examples_of

from fedperfit.edge.engine.examples import KEPT_TAIL, encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Pair


@pytest.fixture
def cache(base):
    return ItemCache(base)


def jobs_of(shape, sizes, *, prefix=9, positions=None) -> list[FitJob]:
    if positions is not None:
        shape = replace(shape, positions=Positions.parse(positions))
    return [
        FitJob(PersonalShift.start(shape, seed=n), examples_of(size, n, prefix=prefix), str(n))
        for n, size in enumerate(sizes)
    ]


def distance(ours, theirs) -> float:
    """Largest relative difference of the tensors of two shifts."""
    pairs = [(getattr(ours, name), getattr(theirs, name)) for name in ("R", "W", "b")]
    return max(((a - b).norm() / b.norm().clamp(min=1e-2)).item() for a, b in pairs)


@given(
    seed=st.integers(0, 10_000),
    positions=st.sampled_from(["l7", "f7+l7", "f2", "l30"]),
    additive=st.booleans(),
    decay=st.booleans(),
    keep=st.booleans(),
    fewest=st.sampled_from([1, 2, 4]),
    clip=st.sampled_from([0.05, 100.0]),
)
@settings(max_examples=6, deadline=None)
def test_users_side_by_side_end_where_each_would_alone(
    precise, shape, training, seed, positions, additive, decay, keep, fewest, clip
):
    """Against recomputing everything, torch's AdamW and its clipping, one user at a time."""
    base = precise
    training = training.replace(learning_rate=1e-3, batch_size=3, clip_norm=clip)
    draw = random.Random(seed)
    sizes = [draw.randint(1, 8) for _ in range(draw.randint(1, 4))]
    together, alone = (jobs_of(shape, sizes, positions=positions) for _ in range(2))
    frozen = [moved(together[0].shift.shape, seed).requires_grad_(False).double()]
    together = [replace(job, fewest=fewest) for job in together]
    for job in together + alone:
        job.shift.double()
    how = {"frozen": frozen, "additive": additive, "decay_rate": decay}
    fits = fit(together, training, ItemCache(base, None if keep else 0), **how)
    for ours, theirs, done in zip(together, alone, fits, strict=True):
        loss = slow_fit(
            base, theirs.shift, theirs.examples, training, order=theirs.order, fewest=fewest, **how
        )
        assert done.loss == pytest.approx(loss, rel=1e-6)
        whole, rest = divmod(len(theirs.examples), 3)
        assert done.steps == 2 * max(1, whole + (rest >= min(fewest, 3)))
        assert distance(ours.shift, theirs.shift) < 1e-5


def test_a_user_in_a_cohort_of_64_ends_where_it_would_alone(base, shape, training, cache):
    training = training.replace(learning_rate=1e-3, batch_size=4, clip_norm=0.05)
    sizes = [1 + n % 7 for n in range(64)]
    together, alone = jobs_of(shape, sizes), jobs_of(shape, sizes)
    fits = fit(together, training, cache)
    for n in (0, 5, 33, 62, 63):
        (done,) = fit([alone[n]], training, ItemCache(base))
        assert done.steps == fits[n].steps
        assert distance(together[n].shift, alone[n].shift) < 1e-5


def test_fit_lowers_the_loss_and_keeps_rows_orthonormal(base, shape, training, cache):
    (job,) = jobs_of(shape, [16])
    before = slow_loss(base, [job.shift], job.examples).item()
    (done,) = fit([job], training, cache)
    assert slow_loss(base, [job.shift], job.examples).item() < before - 0.1
    assert (done.items, done.steps) == (16, 4)
    error = (job.shift.R @ job.shift.R.mT - torch.eye(shape.rank)).abs().max()
    assert error < 1e-5


def test_fit_is_deterministic_and_depends_on_the_order_seed(shape, training, cache):
    results = []
    for order in ("a", "a", "b"):
        job = FitJob(PersonalShift.start(shape, seed=0), examples_of(20), order)
        fit([job], training, cache)
        results.append(job.shift.b.detach().clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_shifts_beneath_are_frozen_and_count(base, shape, training, cache):
    frozen = moved(shape, 3).requires_grad_(False)
    kept = [tensor.clone() for tensor in frozen.parameters()]
    (alone,), (above,) = jobs_of(shape, [8]), jobs_of(shape, [8])
    fit([alone], training, cache)
    fit([above], training, cache, frozen=[frozen])
    assert all(torch.equal(now, then) for now, then in zip(frozen.parameters(), kept, strict=True))
    assert not torch.equal(alone.shift.b, above.shift.b)
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_one_user_whose_training_fails_leaves_the_others_alone(shape, training, cache):
    jobs, healthy = jobs_of(shape, [5, 5, 5]), jobs_of(shape, [5, 5, 5])
    with torch.no_grad():
        jobs[1].shift.b.fill_(float("nan"))
    fits = fit(jobs, training, cache)
    assert fits[1].loss != fits[1].loss
    expected = fit(healthy, training, cache)
    for n in (0, 2):
        assert distance(jobs[n].shift, healthy[n].shift) < 1e-5
        assert fits[n].loss == pytest.approx(expected[n].loss, rel=1e-5)


def test_no_examples_is_an_error(shape, training, cache):
    with pytest.raises(InputError, match="no history"):
        fit([FitJob(PersonalShift.start(shape, seed=0), [], "x")], training, cache)


def test_shapes_that_differ_are_an_error(shape, training, cache):
    wide = replace(shape, rank=5)
    with pytest.raises(InputError, match="one shape"):
        fit(jobs_of(shape, [2]) + jobs_of(wide, [2]), training, cache)


def test_a_long_prompt_loses_its_field_and_keeps_its_end(base):
    long = Pair("Which tag? " + "word " * 2000 + "description end\n", "comedy")
    (example,) = encode(base, [long])
    assert len(example.prompt) + len(example.target) == base.context
    (short,) = encode(base, [Pair(" description end\n", "comedy")])
    kept = len(short.prompt) - 1
    assert example.prompt[0] == base.tokenizer.bos_token_id
    assert kept <= KEPT_TAIL
    assert example.prompt[-kept:] == short.prompt[1:]
    assert example.target[-1] == base.tokenizer.eos_token_id


@pytest.mark.parametrize("prompt", ["", "Which headline?\n", "word " * 2000])
def test_a_target_longer_than_the_context_is_cut_and_can_be_learned(
    base, shape, training, cache, prompt, caplog
):
    few, long = Pair("Which headline?\n", "a word"), Pair(prompt, "word " * 2000)
    examples = encode(base, [few, long])
    assert examples[0] == encode(base, [few])[0]
    assert max(len(e.prompt) + len(e.target) for e in examples) <= base.context
    assert examples[1].target[-1] != base.tokenizer.eos_token_id
    assert "1 of 2 texts to learn are cut" in caplog.text
    assert "word" not in caplog.text
    (done,) = fit([FitJob(moved(shape, 1), examples, "0")], training, cache)
    assert 0 < done.loss < 100


def test_an_answer_that_fills_the_context_is_an_error(base):
    with pytest.raises(InputError, match="500 tokens for an answer leave no room in a context of 512"):
        encode(base, [Pair("Which headline?\n", "")], reserve=500)


def test_a_shift_that_can_change_nothing_is_an_error(base, shape, training, cache):
    last = replace(shape, layers=(base.card.layers - 1,), positions=Positions.parse("f7"))
    with pytest.raises(InputError, match="change no answer"):
        fit(jobs_of(last, [2]), training, cache)
