"""The fast paths on other architectures, small and random: they call the models as they are."""

import pytest
import torch
from moved_shift import moved
from test_contexts import with_prefix
from test_training import examples_of
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from edge.answering import likeliest
from edge.contexts import build_contexts
from edge.training import batch_loss
from protocol.base_model import BaseModel
from protocol.injection import injected
from protocol.positions import Positions
from protocol.shift import ShiftShape

SIZE = {
    "vocab_size": 512,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
GQA = {"num_key_value_heads": 2}
CONFIGS = {
    "llama": LlamaConfig(**SIZE, **GQA),
    "mistral": MistralConfig(**SIZE, **GQA, sliding_window=None),
    "qwen2": Qwen2Config(**SIZE, **GQA),
    "gpt-neox": GPTNeoXConfig(**SIZE),
    "gpt2": GPT2Config(vocab_size=512, n_embd=32, n_layer=4, n_head=4, n_positions=128),
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def small(request) -> BaseModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval().requires_grad_(False)
    return BaseModel(model=model, tokenizer=None, card=None)


SHAPE = ShiftShape(layers=(1, 2), rank=3, hidden_size=32, positions=Positions.parse("l7"))


def test_contexts_equal_recomputing(small):
    examples = with_prefix(examples_of(6), 9)
    rows = [3, 0, 5, 1, 2, 4]
    shifts = [moved(SHAPE, 1), moved(SHAPE, 2)]
    contexts = build_contexts(small, [example.prompt for example in examples], SHAPE.positions)
    assert contexts is not None
    results = []
    for cached in (None, contexts):
        loss = batch_loss(small, shifts, [examples[row] for row in rows], rows, cached)
        results.append([loss.detach(), *torch.autograd.grad(loss, list(shifts[1].parameters()))])
    for slow, fast in zip(*results, strict=True):
        assert torch.allclose(slow, fast, rtol=1e-4, atol=1e-5 * slow.abs().max().clamp(min=1e-3))


def test_a_sliding_window_shorter_than_the_prompt_is_recomputed():
    """Such a model forgets the keys of old tokens, so there is nothing whole to reuse."""
    torch.manual_seed(0)
    config = MistralConfig(**SIZE, **GQA, sliding_window=8)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    sliding = BaseModel(model=model, tokenizer=None, card=None)
    prompts = [example.prompt for example in with_prefix(examples_of(5, seed=4), 20)]
    assert build_contexts(sliding, prompts, SHAPE.positions) is None
    check_likeliest(sliding, prompts)


def test_likeliest_equals_scoring_each_label_in_full(small):
    check_likeliest(small, [example.prompt for example in examples_of(5, seed=4)])


def check_likeliest(small, prompts):
    shifts = [moved(SHAPE, 1), moved(SHAPE, 2)]
    labels = [(5, 6, 2), (5, 7, 8, 9, 2), (11, 2), (12, 13, 2), (14,)]
    chosen = likeliest(small, shifts, prompts, labels, batch_size=3)
    for prompt, index in zip(prompts, chosen, strict=True):
        scores = []
        for label in labels:
            ids = torch.tensor([[*prompt, *label]])
            inside = torch.arange(ids.shape[1])[None] < len(prompt)
            with torch.no_grad(), injected(small.model, shifts, SHAPE.positions.mask(inside)):
                logs = small.model(input_ids=ids).logits[0].log_softmax(-1)
            start = len(prompt) - 1
            scores.append(sum(logs[start + place, token].item() for place, token in enumerate(label)))
        assert scores[index] == pytest.approx(max(scores), abs=1e-4)
        assert sorted(scores)[-1] - sorted(scores)[-2] > 1e-3, "the labels are not tied"
