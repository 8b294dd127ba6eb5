"""One model in several precisions is near, others are far: on the embedded model, which every test has."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedperfit.protocol.model.base_model import EMBEDDED, load
from fedperfit.protocol.model.functional import (
    TOLERANCE,
    FunctionalFingerprint,
    functional_fingerprint,
)
from fedperfit.protocol.system.errors import InputError


@pytest.fixture(scope="module")
def base():
    return load(EMBEDDED, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def told(base):
    return FunctionalFingerprint.parse(functional_fingerprint(base).text())


@pytest.fixture
def other(base):
    """A copy to be changed."""
    return replace(base, model=copy.deepcopy(base.model))


def matrices(base):
    named = base.model.named_parameters()
    return [weight for name, weight in named if weight.dim() == 2 and "embed" not in name]


def rounded(weight, bits, group=64):
    """Round as 8 and 4 bit storage does, with a scale and a zero for each group of weights."""
    groups = weight.reshape(-1, group)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    return (((groups - low) / scale).round() * scale + low).view_as(weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_same_model(told, other, dtype):
    other.model.to(dtype)
    assert told.distance(other) < TOLERANCE / 10


@pytest.mark.parametrize(("bits", "share"), [(8, 0.1), (4, 0.8)])
def test_quantized_weights_are_the_same_model(told, other, bits, share):
    for weight in matrices(other):
        weight.data = rounded(weight.data, bits)
    assert told.distance(other) < share * TOLERANCE
    told.check(other, "mine")


def noisy(model):
    torch.manual_seed(0)
    for weight in matrices(model):
        weight.data += 0.2 * weight.data.std() * torch.randn_like(weight)


def slower_positions(model):
    model.model.model.rotary_emb.inv_freq /= 2


def trained_otherwise(model):
    torch.manual_seed(0)
    for weight in matrices(model)[: len(matrices(model)) // 2]:
        torch.nn.init.normal_(weight, std=float(weight.std()))


@pytest.mark.parametrize("change", [noisy, slower_positions, trained_otherwise])
def test_another_model_is_told(told, other, change):
    change(other)
    assert told.distance(other) > 1.2 * TOLERANCE
    with pytest.raises(InputError, match="mine is another base model"):
        told.check(other, "mine")


def test_tokens_that_the_model_does_not_have_are_infinitely_far(told, base):
    beyond = [[row[0], 100_000] for row in told.tokens]
    assert FunctionalFingerprint(beyond, [[0, 0]] * len(beyond)).distance(base) == float("inf")
    assert FunctionalFingerprint(told.tokens[1:], told.logs[1:]).distance(base) == float("inf")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.integers(), st.lists))
def test_anything_else_is_refused(value):
    with pytest.raises(InputError, match="not a functional fingerprint"):
        FunctionalFingerprint.parse(json.dumps(value))


@pytest.mark.parametrize(
    "text", ["", "{", "[[[1]],[[0.5]]]", "[[[1]],[]]", "[[[1],[2,3]],[[0],[0,0]]]", "[[[-1]],[[0]]]"]
)
def test_what_is_nearly_one_is_refused(text):
    with pytest.raises(InputError, match="not a functional fingerprint"):
        FunctionalFingerprint.parse(text)
