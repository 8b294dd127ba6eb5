"""Training of adapters: a shared prefix that is run once gives the loss and gradients of whole rows."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.protocol.encoder_decoders import encoder_decoder
from tests.protocol.tiny_models import CONFIGS, END, VOCABULARY, tiny_model

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.rows import batch_loss, collate
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.simulation.compare.building_blocks.adapters import targets, wrapped
from fedperfit.simulation.compare.building_blocks.baseline_training import shared_prefix, step_loss, train


def base_of(name: str) -> BaseModel:
    card: Any = SimpleNamespace(hidden_size=16, layers=3)
    return BaseModel(model=tiny_model(name).double(), tokenizer=None, card=card)  # type: ignore[arg-type]


def examples(rng: random.Random, shared: int, rows: int) -> list[Example]:
    tokens = range(2, VOCABULARY)
    prefix = tuple(rng.choices(tokens, k=shared))
    return [
        Example(
            (*prefix, 2 + n % 30, *rng.choices(tokens, k=rng.randint(0, 6))),
            (*rng.choices(tokens, k=rng.randint(0, 3)), END),
        )
        for n in range(rows)
    ]


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("shared", [0, 1, 2, 9])
def test_a_shared_prefix_changes_neither_loss_nor_gradients(name, shared):
    base = base_of(name)
    rng = random.Random(shared)
    rows = examples(rng, shared, 5)
    known = shared_prefix(base, rows)
    assert known == shared or name == "gemma3"
    torch.manual_seed(0)
    with wrapped(base, 2, targets(base, collective=False)) as model:
        model.eval()  # without dropout
        parameters = [p for p in model.parameters() if p.requires_grad]
        for parameter in parameters:
            torch.nn.init.normal_(parameter, std=0.2)
        losses = [step_loss(base, rows, known), batch_loss(base.model, collate(rows, base.device))]
        gradients = [torch.autograd.grad(loss, parameters) for loss in losses]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-9 if name != "gemma3" else 1e-5)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_training_lowers_the_loss_and_leaves_the_frozen_weights():
    base = base_of("llama")
    frozen = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    rows = examples(random.Random(3), 6, 8)
    with wrapped(base, 4, targets(base, collective=True)) as model:
        model.train()
        before = step_loss(base, rows, 0).item()
        parameters = [p for p in model.parameters() if p.requires_grad]
        train(base, parameters, rows, epochs=30, learning_rate=1e-2, batch_size=4, order="a")
        assert step_loss(base, rows, 0).item() < 0.7 * before
    after = base.model.state_dict()
    assert set(after) == set(frozen)
    assert all(torch.equal(after[name], tensor) for name, tensor in frozen.items())


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_adapter_reaches_the_encoder_and_the_decoder(name):
    """Two layers attend in the encoder; three in the decoder, to itself and to what was read."""
    base = encoder_decoder(name)
    rows = [Example((5, 6, 7, last, *base.mark), (last, END)) for last in (8, 9)]
    with wrapped(base, 2, targets(base, collective=False), dropout=0.0) as model:
        trained = [p for p in model.parameters() if p.requires_grad]
        assert len(trained) == (2 + 2 * 3) * 2 * 2
        for parameter in trained:
            torch.nn.init.normal_(parameter, std=0.2)
        losses = [step_loss(base, rows, shared_prefix(base, rows)), step_loss(base, rows, 0)]
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
        gradients = torch.autograd.grad(losses[0], trained)
        assert all(bool(gradient.any()) for gradient in gradients)
    assert step_loss(base, rows, 0).item() != pytest.approx(losses[0].item(), rel=1e-3)


def test_a_loss_that_is_not_finite_ends_training():
    base = base_of("llama")
    weight = torch.nn.Parameter(torch.tensor([float("nan")], dtype=torch.float64))
    rows = examples(random.Random(3), 6, 4)
    train(base, [weight], rows, epochs=2, learning_rate=1.0, batch_size=2, order="a", penalty=1.0)
    assert weight.isnan().all()
