"""The card and the loading of tiny random models written to disk here; no network."""

import logging.handlers
import math
import time
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.protocol.model.folders import edit_config, save_model, tokenizer_into
from tests.protocol.tiny_models import CONFIGS, tiny_model
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma4TextConfig,
    MambaConfig,
    MptConfig,
)

from fedperfit.protocol.model import base_model
from fedperfit.protocol.model.base_model import EMBEDDED, BaseModel, load, read_card, resolve
from fedperfit.protocol.model.config import attention_sizes
from fedperfit.protocol.system.errors import InputError


@pytest.fixture(autouse=True)
def _no_old_cards():
    base_model._read_card.cache_clear()


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", CONFIGS)
def test_card_and_model_agree(name, tmp_path):
    save_model(name, tmp_path)
    base = load(str(tmp_path), device="cpu")
    assert base.card == read_card(str(tmp_path))
    assert base.card.parameters == base.model.num_parameters()
    assert (base.card.hidden_size, base.card.layers, base.card.dtype) == (16, 3, "float32")
    assert base.context == 64
    assert base.device == torch.device("cpu")


@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral", "gemma", "gemma3"])
def test_lora_is_counted_on_query_and_value_projections(name, tmp_path):
    """A (8, in) and B (out, 8) for each, also where values have fewer heads than queries."""
    save_model(name, tmp_path)
    shapes = [
        (module.in_features, module.out_features)
        for path, module in tiny_model(name).named_modules()
        if path.endswith(("q_proj", "v_proj"))
    ]
    assert len(shapes) == 2 * 3
    assert read_card(str(tmp_path)).lora_qv == sum(8 * (inputs + outputs) for inputs, outputs in shapes)


@pytest.mark.parametrize(
    ("config", "context"),
    [
        (MambaConfig(), 100),
        (MptConfig(max_seq_len=48), 48),
        (BloomConfig(), 100),
        (Gemma4TextConfig(), 131072),
    ],
    ids=["mamba", "mpt", "bloom", "gemma4"],
)
def test_models_that_name_no_longest_input_have_the_tokenizers(config, context):
    model = SimpleNamespace(config=config)
    assert BaseModel(model, SimpleNamespace(model_max_length=100), None).context == context
    unlimited = BaseModel(model, SimpleNamespace(model_max_length=int(1e30)), None)
    assert unlimited.context == (8192 if context == 100 else context)


def test_a_model_without_attention_has_a_card_and_loads(tmp_path):
    config = MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=3, state_size=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer_into(tmp_path)
    base = load(str(tmp_path), device="cpu")
    assert (base.card.layers, base.card.hidden_size, base.card.lora_qv) == (3, 16, 0)


def test_heads_that_differ_between_layers_are_those_of_the_widest():
    config = Gemma4TextConfig()
    assert attention_sizes(config).head_size == max(
        config.per_layer_config[layer].head_dim for layer in range(config.num_hidden_layers)
    )


def test_embedded_model_is_found():
    assert resolve(EMBEDDED) == base_model.embedded_folder()
    assert read_card(EMBEDDED).fingerprint == read_card(str(base_model.embedded_folder())).fingerprint


def test_fingerprint_does_not_depend_on_sharding(original, tmp_path):
    save_model("llama", tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert read_card(str(tmp_path)) == read_card(str(original))


def test_weights_that_are_not_loaded_do_not_count(original, folder):
    """Some repositories carry the weights a second time, under other names."""
    save_file({"layers.0.wq": torch.zeros(3)}, folder / "consolidated.safetensors")
    assert read_card(str(folder)) == read_card(str(original))


def flip_first_bit(tensors):
    tensors["model.layers.1.mlp.up_proj.weight"].view(torch.uint8)[0, 0] ^= 1


def flip_last_bit(tensors):
    tensors["model.layers.1.mlp.up_proj.weight"].view(torch.uint8)[-1, -1] ^= 128


def rename(tensors):
    tensors["model.layers.9.mlp.up_proj.weight"] = tensors.pop("model.layers.1.mlp.up_proj.weight")


def reshape(tensors):
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].reshape(tensors[name].T.shape)


def round_to_half(tensors):
    tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})


@pytest.mark.parametrize("change", [flip_first_bit, flip_last_bit, rename, reshape, round_to_half])
def test_fingerprint_changes_with_the_weights(original, folder, change):
    edit_weights(folder, change)
    assert read_card(str(folder)).fingerprint != read_card(str(original)).fingerprint


def test_fingerprint_changes_with_the_tokenizer(original, folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"j"', '"k"'))
    assert read_card(str(folder)).fingerprint != read_card(str(original)).fingerprint


def test_loaded_weights_are_frozen(original):
    model = load(str(original), device="cpu").model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    half = load(str(original), device="cpu", dtype="bfloat16").model
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def refused(action, *told):
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in told), message


def test_unknown_folders_are_told(tmp_path):
    for name in (str(tmp_path / "gone"), "./gone", "~/gone", "a/b/c", ""):
        refused(lambda name=name: read_card(name), "no such folder")
    refused(lambda: read_card("~nobody-here/m"), "no such home folder")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_missing_file_is_named(folder, file):
    (folder / file).unlink()
    refused(lambda: read_card(str(folder)), f"{file} is missing")


def test_missing_shard_is_named(tmp_path):
    save_model("llama", tmp_path, max_shard_size="4KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()
    refused(lambda: read_card(str(tmp_path)), f"{shard.name} is missing")


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": 7}', "{"])
def test_broken_index_is_named(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    refused(lambda: read_card(str(folder)), "model.safetensors.index.json")


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_truncated_weights_are_told(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    refused(lambda: read_card(str(folder)), "model.safetensors")


@pytest.mark.parametrize(
    "content",
    [b"{", b"[1]", b"", b"\xff\xfe", b"{}", b'{"model_type": "unheard-of"}', b'{"model_type": "whisper"}'],
)
def test_broken_config_is_told(folder, content):
    (folder / "config.json").write_bytes(content)
    refused(lambda: read_card(str(folder)), str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 0},
        {"num_attention_heads": "4"},
        {"num_attention_heads": 3},
        {"num_hidden_layers": None},
        {"hidden_size": -1},
        {"dtype": "float3"},
        {"model_type": "whisper"},
    ],
    ids=str,
)
def test_config_of_no_decoder_is_told(folder, changes):
    edit_config(folder, **changes)
    refused(lambda: read_card(str(folder)), str(folder))


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 4}, {"vocab_size": 99}, {"intermediate_size": 48}])
def test_weights_that_do_not_fit_are_told_not_drawn_at_random(folder, changes, monkeypatch):
    told = logging.handlers.BufferingHandler(100)
    monkeypatch.setattr(logging.getLogger("transformers"), "handlers", [told])
    edit_config(folder, **changes)
    refused(lambda: load(str(folder), device="cpu"), "weights are missing or of another shape")
    assert told.buffer == []


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_are_no_finite_numbers_are_told(folder, number, dtype):
    def change(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = number

    edit_weights(folder, change)
    told = f"base model {folder}: the weights model.layers.1.mlp.up_proj.weight are not all finite numbers"
    refused(lambda: load(str(folder), device="cpu", dtype=dtype), told)


def test_missing_tokenizer_is_told(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    refused(lambda: load(str(folder), device="cpu"), str(folder))


@pytest.mark.parametrize(
    "options", [{"dtype": "float8"}, {"dtype": ""}, {"device": "abacus"}, {"device": "cuda:99"}]
)
def test_strange_device_or_dtype_is_told(original, options):
    refused(lambda: load(str(original), **{"device": "cpu", **options}))


@pytest.mark.parametrize("name", ["nobody/nothing-here", "nothing-here", "not a/name"])
def test_hub_name_without_network_or_cache_fails_at_once(name, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    refused(lambda: read_card(name), repr(name), "neither a folder nor on the hub")
    assert time.monotonic() - started < 5


def test_weights_on_disk_are_what_was_hashed(original):
    """The count of the card is that of the file, read independently."""
    with safe_open(original / "model.safetensors", framework="np") as file:
        sizes = [file.get_tensor(name).size for name in file.keys()]  # noqa: SIM118 - not a mapping
    assert read_card(str(original)).parameters == sum(sizes)
