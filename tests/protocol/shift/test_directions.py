"""The edit is (I - P_N)(I + P_P) x, in the model and in its weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from tests.fuzzing import FUZZED
from tests.protocol.tiny_models import CONFIGS, tiny_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.shift.directions import Directions, editing
from fedperfit.protocol.system.errors import InputError

SIZE = 16


def some(layers: tuple[int, ...] = (0, 2), seed: int = 0) -> Directions:
    start = torch.Generator().manual_seed(seed)
    p, n = (torch.randn(len(layers), SIZE, generator=start) for _ in range(2))
    return Directions.of(layers, p, n)


def test_the_edit_is_a_product_of_projections():
    found = some()
    x = torch.randn(5, 7, SIZE, dtype=torch.double)
    for number in range(2):
        p, n = found.personalized[number].double(), found.neutral[number].double()
        expected = (torch.eye(SIZE) - torch.outer(n, n)) @ (torch.eye(SIZE) + torch.outer(p, p))
        torch.testing.assert_close(found.edit(x, number), x @ expected.T, rtol=0, atol=1e-6)


@given(st.floats(1e-3, 1e3), st.sampled_from([-1, 1]))
def test_neither_length_nor_sign_matters(length, sign):
    plain = some()
    other = Directions.of((0, 2), sign * length * plain.personalized, -sign * plain.neutral)
    x = torch.randn(4, SIZE)
    torch.testing.assert_close(other.edit(x, 1), plain.edit(x, 1), rtol=1e-5, atol=1e-5)


def test_an_absent_direction_changes_nothing():
    x, none = torch.randn(4, SIZE), torch.zeros(1, SIZE)
    given = some((1,))
    assert torch.equal(Directions.of((1,), none, none).edit(x, 0), x)
    only = Directions.of((1,), given.personalized, none)
    p = given.personalized[0]
    torch.testing.assert_close(only.edit(x, 0), x + torch.outer(x @ p, p))


@contextmanager
def folded(model: nn.Module, directions: Directions) -> Iterator[None]:
    """The edit as part of the MLPs' down projections: an oracle for the hooks of `editing`."""
    saved: list[tuple[nn.Parameter, torch.Tensor]] = []
    for number, layer in enumerate(directions.layers):
        mlp = decoder_layers(model)[layer].get_submodule("mlp")
        projection = [part for part in mlp.modules() if isinstance(part, nn.Linear | Conv1D)][-1]
        for value in projection.parameters():
            saved.append((value, value.data))
            if value.ndim == 2 and isinstance(projection, nn.Linear):  # (d, inner): columns are outputs
                value.data = directions.edit(value.data.T, number).T
            else:
                value.data = directions.edit(value.data, number)
    yield
    for value, data in saved:
        value.data = data


@pytest.mark.parametrize("name", CONFIGS)
def test_folded_into_the_down_projection_it_gives_the_same_logits(name):
    model, ids = tiny_model(name), torch.randint(2, 40, (3, 9))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        bare = model(ids).logits
        with editing(model, some()):
            edited = model(ids).logits
        with folded(model, some()):
            torch.testing.assert_close(model(ids).logits, edited, rtol=0, atol=1e-4)
        assert torch.equal(model(ids).logits, bare)
    assert not torch.allclose(edited, bare, atol=1e-2)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_it_acts_on_mlp_outputs_while_decoding_too():
    """Greedy text from a cache equals that of whole passes."""
    model, ids = tiny_model("llama"), torch.randint(2, 40, (1, 6))
    with torch.no_grad(), editing(model, some()):
        out = model.generate(input_ids=ids, max_new_tokens=5, do_sample=False, min_new_tokens=5)
        for end in range(6, 11):
            logits = model(out[:, :end]).logits[0, -1]
            logits[1] = -torch.inf  # the end token, which generation leaves out
            assert int(logits.argmax()) == int(out[0, end])


def test_bytes_there_and_back():
    found = some()
    back = Directions.from_bytes(found.to_bytes())
    assert back.layers == found.layers
    torch.testing.assert_close(back.personalized, found.personalized, rtol=0, atol=1e-6)
    torch.testing.assert_close(back.neutral, found.neutral, rtol=0, atol=1e-6)


@FUZZED
@given(st.integers(0, 700), st.integers(0, 60), st.binary(max_size=40))
def test_changed_bytes_are_directions_or_one_line(start, cut, inserted):
    good = some().to_bytes()
    try:
        found = Directions.from_bytes(good[:start] + inserted + good[start + cut :])
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert torch.isfinite(found.edit(torch.randn(2, found.neutral.shape[1]), 0)).all()


@pytest.mark.parametrize(
    ("layers", "p", "n"),
    [
        ([], torch.zeros(0, 4), torch.zeros(0, 4)),
        ([2, 1], torch.zeros(2, 4), torch.zeros(2, 4)),
        ([-1], torch.zeros(1, 4), torch.zeros(1, 4)),
        ([1], torch.zeros(1, 4), torch.zeros(1, 5)),
        ([1], torch.zeros(2, 4), torch.zeros(2, 4)),
        ([1], torch.full((1, 4), torch.nan), torch.zeros(1, 4)),
        ([1], torch.zeros(1, 4), torch.full((1, 4), torch.inf)),
    ],
)
def test_what_is_no_direction_is_refused(layers, p, n):
    with pytest.raises(InputError, match="directions"):
        Directions.of(layers, p, n)


def test_other_files_and_other_models_are_refused():
    for data in (b"", save({"x": torch.zeros(1)}), some().to_bytes()[:-1]):
        with pytest.raises(InputError, match="directions"):
            Directions.from_bytes(data)
    model = tiny_model("llama")
    for wrong in (some((0, 7)), Directions.of((0,), torch.ones(1, 8), torch.ones(1, 8))):
        with pytest.raises(InputError, match="directions"), editing(model, wrong):
            pass
