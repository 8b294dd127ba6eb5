"""The fast paths on other architectures, small and random: they call the models as they are."""

from dataclasses import replace

import pytest
import torch
from tests.edge.engine.slow_training import slow_loss
from tests.edge.moved_shift import moved
from tests.edge.random_items import examples_of
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from fedperfit.edge.engine.answering import score_labels
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.items import CachePlan, ItemCache
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.edge.engine.step import StepRow, step_losses
from fedperfit.protocol.model.base_model import BaseModel, BaseModelCard
from fedperfit.protocol.shift.injection import injected
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape

SIZE = {
    "vocab_size": 512,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
CARD = BaseModelCard("", 32, 4, 0, "float32", 0)
GQA = {"num_key_value_heads": 2}
CONFIGS = {
    "llama": LlamaConfig(**SIZE, **GQA),
    "mistral": MistralConfig(**SIZE, **GQA, sliding_window=None),
    "qwen2": Qwen2Config(**SIZE, **GQA),
    "gpt-neox": GPTNeoXConfig(**SIZE),
    "gemma": GemmaConfig(**SIZE, num_key_value_heads=1, head_dim=8),
    "gemma3": Gemma3TextConfig(**SIZE, **GQA, head_dim=8, sliding_window=256),
    "gpt2": GPT2Config(vocab_size=512, n_embd=32, n_layer=4, n_head=4, n_positions=128),
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def small(request) -> BaseModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval().requires_grad_(False)
    return BaseModel(model=model, tokenizer=None, card=CARD)


SHAPE = ShiftShape(layers=(1, 2), rank=3, hidden_size=32, positions=Positions.parse("l7"))


@pytest.mark.parametrize("positions", ["l7", "f7+l7"])
@pytest.mark.parametrize("budget", [1 << 30, 20_000, 0])
def test_a_step_equals_recomputing(small, positions, budget):
    check_step(small, Positions.parse(positions), budget)


def check_step(small, positions, budget):
    shape = replace(SHAPE, positions=positions)
    examples = examples_of(6, prefix=9)
    frozen, own = moved(shape, 1).requires_grad_(False), [moved(shape, 2), moved(shape, 3)]
    prepared = ItemCache(small, budget).prepare([examples], 1, positions)
    slab = Slab.of(own, small.device, train=True)
    rows = [StepRow(n // 4, example, prepared.items[example]) for n, example in enumerate(examples)]
    losses = step_losses(small, Stack([frozen], slab, False), prepared, rows)
    gradients = torch.autograd.grad(losses.sum(), slab.tensors)
    for user, chosen in enumerate((examples[:4], examples[4:])):
        slow = slow_loss(small, [frozen, own[user]], chosen)
        assert losses[user].item() == pytest.approx(slow.item(), rel=1e-5)
        parameters = [own[user].R, own[user].W, own[user].b]
        for fast, alone in zip(gradients, torch.autograd.grad(slow, parameters), strict=True):
            assert (fast[user] - alone).norm() <= 2e-5 * alone.norm()
    return prepared.kind.plan


def test_a_sliding_window_shorter_than_the_prompt_is_recomputed():
    """Such a model forgets the keys of old tokens, so there is nothing whole to reuse."""
    torch.manual_seed(0)
    config = MistralConfig(**SIZE, **GQA, sliding_window=8)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    sliding = BaseModel(model=model, tokenizer=None, card=CARD)
    for positions in ("l7", "f7+l7"):
        assert check_step(sliding, Positions.parse(positions), 1 << 30) is CachePlan.STATES
    for prefix in (20, 4):
        check_labels(sliding, [e.prompt for e in examples_of(5, seed=4, prefix=prefix)])


def test_labels_that_outgrow_a_window_are_scored_in_full():
    """The prompts fit twice into the window, so their beginning is shared; with the labels they do not."""
    torch.manual_seed(0)
    config = MistralConfig(**SIZE, **GQA, sliding_window=52)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    prompts = [example.prompt for example in examples_of(8, seed=4, prefix=4, shortest=8)]
    longest = max(map(len, prompts))
    assert 2 * longest <= 52 < 2 * (longest + 9)
    check_labels(BaseModel(model=model, tokenizer=None, card=CARD), prompts)


def test_scores_of_labels_equal_scoring_each_in_full(small):
    check_labels(small, [example.prompt for example in examples_of(5, seed=4)])


def check_labels(small, prompts):
    """Labels of one length, and of several."""
    shifts = [moved(SHAPE, 1), moved(SHAPE, 2)]
    questions = [Question(prompt) for prompt in prompts]
    for labels in (
        [(first, first + 50, 2) for first in range(5, 25)],
        [(first, 2) for first in range(5, 45)],
        [(5, 6, 2), (5, 7, 8, 9, 2), (11, 2), (12, 13, 2), (14,)],
    ):
        found = score_labels(small, Stack(shifts, None, False), questions, labels, batch_size=3)
        for prompt, scores in zip(prompts, found, strict=True):
            slow = [slow_score(small, shifts, prompt, label) for label in labels]
            assert scores.tolist() == pytest.approx(slow, abs=1e-4)


def slow_score(small, shifts, prompt, label) -> float:
    ids = torch.tensor([[*prompt, *label]])
    inside = torch.arange(ids.shape[1])[None] < len(prompt)
    with torch.no_grad(), injected(small.model, shifts, SHAPE.positions.mask(inside)):
        logs = small.model(input_ids=ids).logits[0].log_softmax(-1)
    start = len(prompt) - 1
    return sum(logs[start + place, token].item() for place, token in enumerate(label))


@pytest.mark.parametrize("positions", ["l7", "f7+l7"])
def test_bf16_models_are_trained_to_the_precision_of_bf16(positions):
    """Rounding differs, so against the oracle in bf16 only the size of the error can be told."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZE, **GQA), dtype=torch.bfloat16)
    half = BaseModel(model=model.eval().requires_grad_(False), tokenizer=None, card=CARD)
    shape = replace(SHAPE, positions=Positions.parse(positions))
    examples, shift = examples_of(6, prefix=9), moved(shape, 2)
    prepared = ItemCache(half).prepare([examples], 1, shape.positions)
    assert prepared.items[examples[0]].hidden.dtype == torch.bfloat16
    slab = Slab.of([shift], half.device, train=True)
    rows = [StepRow(0, example, prepared.items[example]) for example in examples]
    (loss,) = step_losses(half, Stack([], slab, False), prepared, rows)
    gradients = torch.autograd.grad(loss, slab.tensors)
    slow = slow_loss(half, [shift], examples)
    assert loss.item() == pytest.approx(slow.item(), rel=1e-2)
    for fast, alone in zip(gradients, torch.autograd.grad(slow, [shift.R, shift.W, shift.b]), strict=True):
        assert fast.dtype == torch.float32
        assert (fast[0] - alone).norm() < 0.1 * alone.norm()
