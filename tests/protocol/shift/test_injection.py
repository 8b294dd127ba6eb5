"""Batched, padded and cached passes against `slow_reference`."""

import random

import pytest
import tests.protocol.slow_reference as slow_reference
import torch
from tests.protocol.tiny_models import CONFIGS, END, PAD, VOCABULARY, tiny_model
from torch import nn
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from fedperfit.protocol.shift.injection import decoder_layers, injected
from fedperfit.protocol.system.errors import InputError

MODELS = {name: tiny_model(name) for name in CONFIGS}
ARCHITECTURES = pytest.mark.parametrize("name", MODELS)
POSITIONS = ["l1", "f2", "l3", "f1+l2", "f3+l3", "f9+l9"]


def draw_batch(rng, *, targets=True):
    """Three prompts and targets of different lengths."""
    return [
        (
            [rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, 7))],
            [rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, 4) if targets else 0)],
        )
        for _ in range(3)
    ]


def pad(batch, side):
    """Token ids, attention mask, prompt mask and position ids, each (batch, tokens)."""
    width = max(len(prompt) + len(target) for prompt, target in batch)
    ids, attention, prompts = [], [], []
    for prompt, target in batch:
        blank = [0] * (width - len(prompt) - len(target))
        rows = [*prompt, *target], [1] * (width - len(blank)), [1] * len(prompt) + [0] * len(target)
        padded = [blank + row if side == "left" else row + blank for row in rows]
        for kept, row in zip((ids, attention, prompts), padded, strict=True):
            kept.append(row)
    attention = torch.tensor(attention)
    position_ids = (attention.cumsum(dim=1) - 1).clamp(min=0)
    return torch.tensor(ids), attention, torch.tensor(prompts).bool(), position_ids


def draw_shifts(rng, make_shift, positions):
    """Two shifts that share some layers, of different ranks."""
    shifts = []
    for seed in rng.sample(range(1_000), 2):
        layers = sorted(rng.sample(range(3), rng.randint(1, 3)))
        shifts.append(make_shift(layers, rng.randint(1, 16), 16, positions, seed=seed))
    return shifts


@ARCHITECTURES
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("positions", POSITIONS)
def test_logits_and_gradients_equal_the_slow_reference(name, side, additive, positions, make_shift):
    rng = random.Random(f"{name} {side} {additive} {positions}")
    model, batch = MODELS[name], draw_batch(rng)
    shifts = draw_shifts(rng, make_shift, positions)
    where = shifts[0].shape.positions
    ids, attention, prompts, position_ids = pad(batch, side)
    with injected(model, shifts, where.mask(prompts), additive=additive):
        fast = model(ids, attention_mask=attention, position_ids=position_ids, use_cache=False).logits

    fast_loss = slow_loss = torch.zeros(())
    for row, (prompt, target) in enumerate(batch):
        slow = slow_reference.logits(
            model,
            prompt + target,
            len(prompt),
            shifts,
            first=where.first,
            last=where.last,
            additive=additive,
        )
        real = attention[row].bool()
        torch.testing.assert_close(fast[row, real], slow, atol=1e-5, rtol=1e-5)
        weight = torch.randn(slow.shape) / slow.numel() ** 0.5
        fast_loss = fast_loss + (weight * fast[row, real]).sum()
        slow_loss = slow_loss + (weight * slow).sum()

    parameters = [tensor for shift in shifts for tensor in (shift.R, shift.W, shift.b)]
    for ours, oracle in zip(
        torch.autograd.grad(fast_loss, parameters), torch.autograd.grad(slow_loss, parameters), strict=True
    ):
        assert oracle.abs().max() > 1e-4
        torch.testing.assert_close(ours, oracle, atol=1e-5 * float(1 + oracle.abs().max()), rtol=1e-5)


@ARCHITECTURES
def test_identity_changes_nothing_and_the_model_is_left_as_it_was(name, make_shift):
    model = MODELS[name]
    ids, attention, prompts, position_ids = pad(draw_batch(random.Random(1)), "left")

    def run():
        return model(ids, attention_mask=attention, position_ids=position_ids).logits

    plain = run()
    shift = make_shift((0, 2), 3, 16)
    identity = type(shift).identity(shift.shape, seed=0)
    with injected(model, [identity], prompts):
        torch.testing.assert_close(run(), plain, atol=1e-5, rtol=1e-5)
    with injected(model, [shift], prompts):
        assert not torch.allclose(run(), plain, atol=1e-2)
    assert torch.equal(run(), plain)


def test_model_is_left_as_it_was_after_an_error(make_shift):
    model, tokens = MODELS["llama"], torch.arange(2, 7)[None]
    plain = model(tokens).logits
    too_long = torch.ones(1, 9, dtype=torch.bool)
    with pytest.raises(IndexError), injected(model, [make_shift((0, 2), 3, 16)], too_long):
        model(tokens)
    assert torch.equal(model(tokens).logits, plain)


def recompute(model, prompt, shifts, where, additive, new_tokens):
    """Greedy tokens for one unpadded prompt, the whole sequence computed again for each."""
    tokens = list(prompt)
    for _ in range(new_tokens):
        scores = slow_reference.logits(
            model, tokens, len(prompt), shifts, first=where.first, last=where.last, additive=additive
        )
        tokens.append(int(scores[-1].argmax()))
        if tokens[-1] == END:
            break
    return tokens[len(prompt) :]


@ARCHITECTURES
@pytest.mark.parametrize(("positions", "additive"), [("l2", False), ("f2+l2", True), ("f9+l9", False)])
def test_greedy_generation_with_a_cache_equals_recomputing_everything(name, positions, additive, make_shift):
    rng = random.Random(f"{name} {positions}")
    model, batch = MODELS[name], draw_batch(rng, targets=False)
    shifts = draw_shifts(rng, make_shift, positions)
    where = shifts[0].shape.positions
    ids, attention, prompts, _ = pad(batch, "left")
    with injected(model, shifts, where.mask(prompts), additive=additive, prefill_only=True):
        output = model.generate(
            ids, attention_mask=attention, max_new_tokens=8, do_sample=False, pad_token_id=PAD
        )
    plain = model.generate(ids, attention_mask=attention, max_new_tokens=8, do_sample=False, pad_token_id=PAD)
    assert not torch.equal(output, plain)
    for row, (prompt, _) in enumerate(batch):
        expected = recompute(model, prompt, shifts, where, additive, 8)
        answer = output[row, ids.shape[1] :].tolist()
        assert answer[: len(expected)] == expected
        assert all(token == PAD for token in answer[len(expected) :])


class _GrowingMask:
    """Shifts the prompt in every pass of a cacheless search, whose passes are ever longer."""

    def __init__(self, model, shifts, mask):
        self.model, self.shifts, self.mask = model, shifts, mask

    def __call__(self, module, args, kwargs):
        tokens = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        grown = torch.zeros(tokens.shape, dtype=torch.bool)
        grown[:, : self.mask.shape[1]] = self.mask.repeat_interleave(len(tokens) // len(self.mask), dim=0)
        self.block = injected(self.model, self.shifts, grown)
        self.block.__enter__()

    def leave(self, *_):
        self.block.__exit__(None, None, None)


@ARCHITECTURES
def test_beam_search_with_a_cache_equals_beam_search_without(name, make_shift):
    rng = random.Random(name)
    model, shifts = MODELS[name], draw_shifts(rng, make_shift, "f1+l2")
    ids, attention, prompts, _ = pad(draw_batch(rng, targets=False), "left")
    mask = shifts[0].shape.positions.mask(prompts)
    search = {
        "attention_mask": attention,
        "max_new_tokens": 6,
        "num_beams": 2,
        "do_sample": False,
        "pad_token_id": PAD,
    }
    with injected(model, shifts, mask, prefill_only=True):
        cached = model.generate(ids, **search)
    passes = _GrowingMask(model, shifts, mask)
    handles = [
        model.register_forward_pre_hook(passes, with_kwargs=True),
        model.register_forward_hook(passes.leave),
    ]
    try:
        whole = model.generate(ids, use_cache=False, **search)
    finally:
        for handle in handles:
            handle.remove()
    assert torch.equal(cached, whole)
    assert not torch.equal(cached, model.generate(ids, **search))


@ARCHITECTURES
def test_last_positions_leave_earlier_ones_untouched(name, make_shift):
    model, shift = MODELS[name], make_shift((0, 1), 4, 16, "l2")
    tokens = torch.arange(2, 12)[None]
    mask = shift.shape.positions.mask(torch.ones(1, 10))
    with injected(model, [shift], mask):
        shifted = model(tokens).logits
    plain = model(tokens).logits
    torch.testing.assert_close(shifted[:, :8], plain[:, :8])
    assert (shifted[:, 8:] - plain[:, 8:]).abs().amax(dim=-1).min() > 1e-3


def test_half_precision_is_shifted_in_single_precision(make_shift):
    model, shift = tiny_model("llama").bfloat16(), make_shift((1,), 4, 16)
    seen = []
    second, third = decoder_layers(model)[1:]
    second.register_forward_hook(lambda module, args, output: seen.append(output))
    third.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with injected(model, [shift], torch.ones(1, 5, dtype=torch.bool)):
        model(torch.arange(2, 7)[None])
    before, after = seen
    exact = torch.stack(
        [slow_reference.phi(h, shift.R[0], shift.W[0], shift.b[0]) for h in before[0].float()]
    )
    assert torch.equal(after[0], exact.bfloat16())


def test_layer_beyond_the_model_is_told(make_shift):
    mask = torch.ones(1, 5, dtype=torch.bool)
    with pytest.raises(InputError, match=r"layer 3 is beyond the base model, whose layers are 0\.\.2"):
        injected(MODELS["llama"], [make_shift((1, 3), 2, 16)], mask).__enter__()


def test_a_model_without_decoder_layers_is_told():
    with pytest.raises(InputError, match="Linear: expected one list"):
        decoder_layers(nn.Linear(2, 2))


def test_layers_of_a_model_that_also_sees_images_are_those_of_its_text_part():
    text = CONFIGS["gemma3"]().to_dict()
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Gemma3Config(text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14})
    layers = decoder_layers(Gemma3ForConditionalGeneration(config))
    assert {type(layer).__name__ for layer in layers} == {"Gemma3DecoderLayer"}
