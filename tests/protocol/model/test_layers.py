import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.protocol.tiny_models import CONFIGS, VOCABULARY, tiny_model

from fedperfit.protocol.model.base_model import EMBEDDED, load
from fedperfit.protocol.model.layers import changing, decoder_layers, running
from fedperfit.protocol.system.errors import InputError


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request):
    return tiny_model(request.param)


def ids(seed: int) -> torch.Tensor:
    return torch.randint(2, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000), layer=st.integers(0, 2))
@settings(max_examples=6, deadline=None)
def test_entering_above_a_layer_with_its_output_is_running_the_whole_model(model, seed, layer):
    outputs = []
    with torch.no_grad():
        with changing(model, [layer], lambda number, hidden: outputs.append(hidden) or hidden):
            whole = model(input_ids=ids(seed), use_cache=False).logits
        with running(model, range(layer + 1, 3), outputs[0]):
            entered = model(inputs_embeds=torch.zeros_like(outputs[0]), use_cache=False).logits
    assert torch.equal(whole, entered)


def test_a_change_of_the_layer_left_out_acts_on_what_enters(model):
    entering = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        with running(model, range(1, 3), entering + 1):
            expected = model(input_ids=ids(0), use_cache=False).logits
        with running(model, range(1, 3), entering), changing(model, [0], lambda layer, hidden: hidden + 1):
            changed = model(input_ids=ids(0), use_cache=False).logits
    assert torch.equal(expected, changed)


def test_layers_left_out_do_not_run_and_run_again_afterwards(model):
    seen: list[int] = []
    layers = decoder_layers(model)
    norms = [next(m for m in layer.modules() if "Norm" in type(m).__name__) for layer in layers]
    handles = [
        norm.register_forward_hook(lambda *_, number=number: seen.append(number))
        for number, norm in enumerate(norms)
    ]
    try:
        with torch.no_grad():
            before = model(input_ids=ids(1), use_cache=False).logits
            with running(model, range(2)):
                seen.clear()  # what the form of the layers' output was learned by, once per model
                model(input_ids=ids(1), use_cache=False)
            assert set(seen) == {0, 1}
            with pytest.raises(TypeError), running(model, range(2)):
                model(input_ids="no tensor")
            assert torch.equal(model(input_ids=ids(1), use_cache=False).logits, before)
    finally:
        for handle in handles:
            handle.remove()


def test_a_model_without_its_list_of_layers_is_an_error():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match="decoder layers"):
        decoder_layers(model)


@pytest.mark.parametrize("rows", [1, 2])
def test_the_head_of_a_loaded_model_multiplies_the_last_column_in_one_piece(rows):
    model, strides = load(EMBEDDED, device="cpu").model, []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, output: strides.append(args[0].stride()))
    with torch.no_grad():
        whole = model(input_ids=ids(3)[:rows]).logits
        last = model(input_ids=ids(3)[:rows], logits_to_keep=1).logits
    width = model.config.hidden_size
    assert strides[1] == (width, width, 1)
    assert torch.allclose(last, whole[:, -1:], atol=1e-4)
