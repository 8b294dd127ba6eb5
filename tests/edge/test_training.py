import random

import pytest
import torch
from moved_shift import moved
from torch.nn import functional as F

from edge.examples import KEPT_TAIL, Example, encode
from edge.personal import PersonalShift
from edge.training import batch_loss, fit
from protocol.errors import InputError
from protocol.injection import injected
from protocol.tasks import Pair


def examples_of(count: int, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 500) for _ in range(rng.randint(low, high)))

    return [Example((1, *tokens(2, 20)), (*tokens(1, 5), 2)) for _ in range(count)]


def test_loss_is_that_of_the_target_tokens_alone(base, shape):
    """Against one example at a time, no padding, log-probabilities summed by hand."""
    examples, shift = examples_of(5), moved(shape, 1)
    with torch.no_grad():
        batched = batch_loss(base, [shift], examples)
        total, count = 0.0, 0
        for example in examples:
            ids = torch.tensor([example.prompt + example.target])
            prompt = torch.arange(ids.shape[1])[None] < len(example.prompt)
            with injected(base.model, [shift], shape.positions.mask(prompt)):
                logs = F.log_softmax(base.model(input_ids=ids).logits[0].float(), -1)
            for place, token in enumerate(example.target, start=len(example.prompt)):
                total -= logs[place - 1, token].item()
                count += 1
    assert batched.item() == pytest.approx(total / count, abs=1e-5)


def test_fit_lowers_the_loss_and_keeps_rows_orthonormal(base, shape, training):
    examples = examples_of(16)
    shift = PersonalShift.start(shape, seed=0)
    before = batch_loss(base, [shift], examples).item()
    done = fit(base, shift, examples, training, order="x")
    after = batch_loss(base, [shift], examples).item()
    assert after < before - 0.1
    assert done.items == 16
    assert done.steps == 4
    error = (shift.R @ shift.R.mT - torch.eye(shape.rank)).abs().max()
    assert error < 1e-5


def test_fit_is_deterministic_and_depends_on_the_order_seed(base, shape, training):
    results = []
    for order in ("a", "a", "b"):
        shift = PersonalShift.start(shape, seed=0)
        fit(base, shift, examples_of(20), training, order=order)
        results.append(shift.b.detach().clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_shifts_beneath_are_frozen_and_count(base, shape, training):
    beneath = moved(shape, 3).requires_grad_(False)
    kept = [tensor.clone() for tensor in beneath.parameters()]
    alone, above = PersonalShift.start(shape, seed=0), PersonalShift.start(shape, seed=0)
    fit(base, alone, examples_of(8), training, order="x")
    fit(base, above, examples_of(8), training, beneath=[beneath], order="x")
    assert all(torch.equal(now, then) for now, then in zip(beneath.parameters(), kept, strict=True))
    assert not torch.equal(alone.b, above.b)
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_no_examples_is_an_error(base, shape, training):
    with pytest.raises(InputError, match="no history"):
        fit(base, PersonalShift.start(shape, seed=0), [], training, order="x")


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
