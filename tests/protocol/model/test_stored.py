"""The fingerprint covers what changes answers, and a base model may be a base with an adapter."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.protocol.model.folders import edit_config
from tests.protocol.tiny_models import tiny_model
from transformers import AutoTokenizer

from fedperfit.protocol.model import base_model
from fedperfit.protocol.model.base_model import EMBEDDED, load, read_card
from fedperfit.protocol.system.errors import InputError

IDS = torch.arange(2, 10)[None]


@pytest.fixture(autouse=True)
def _no_old_cards():
    base_model._read_card.cache_clear()


@pytest.fixture(scope="module")
def adapter(original, tmp_path_factory):
    """An adapter that changes the answers, saved as PEFT saves one."""
    peft = pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("adapters") / "lora"
    torch.manual_seed(0)
    model = peft.get_peft_model(tiny_model("llama"), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    about = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps({**about, "base_model_name_or_path": str(original)})
    )
    return folder, model(IDS).logits.detach()


def identity(folder):
    base_model._read_card.cache_clear()
    return read_card(str(folder)).fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
        {"rms_norm_eps": 1e-3},
        {"hidden_act": "gelu"},
        {"eos_token_id": 7},
    ],
    ids=str,
)
def test_what_changes_answers_changes_the_fingerprint(original, folder, changes):
    edit_config(folder, **changes)
    assert identity(folder) != identity(original)


@pytest.mark.parametrize(
    "changes", [{"use_cache": False}, {"transformers_version": "4.0"}, {"dtype": "float16"}]
)
def test_what_changes_none_does_not(original, folder, changes):
    edit_config(folder, **changes)
    assert identity(folder) == identity(original)


def test_a_chat_template_changes_it(original, folder):
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert identity(folder) != identity(original)


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "source.spm", "qwen.tiktoken", "bpe.codes"])
def test_a_vocabulary_of_another_kind_of_tokenizer_changes_it(original, folder, name):
    seen = {identity(original)}
    for content in (b"one", b"another"):
        (folder / name).write_bytes(content)
        seen.add(identity(folder))
    assert len(seen) == 3
    assert read_card(str(folder)).former == read_card(str(original)).former, "as former versions have it"


def test_an_adapter_beside_the_weights_is_applied_and_changes_it(original, folder, adapter):
    source, logits = adapter
    shutil.copytree(source, folder, dirs_exist_ok=True)
    first = identity(folder)
    assert first != identity(original)
    torch.testing.assert_close(load(str(folder), device="cpu").model(IDS).logits, logits)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: 1.5 * tensor for name, tensor in tensors.items()}, path)
    assert identity(folder) not in (first, identity(original))


def test_an_adapter_names_its_base(original, adapter):
    source, logits = adapter
    base = load(str(source), device="cpu")
    torch.testing.assert_close(base.model(IDS).logits, logits)
    assert base.card.fingerprint == identity(source)
    assert base.card.fingerprint != identity(original)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_an_adapter_beside_and_on_top_of_the_same_weights_are_one_model(folder, adapter):
    shutil.copytree(adapter[0], folder, dirs_exist_ok=True)
    assert identity(folder) == identity(adapter[0])


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"base_model_name_or_path": None}, "does not name the base model"),
        ({"base_model_name_or_path": "./gone"}, "no such folder"),
    ],
)
def test_an_adapter_without_a_base_is_told(adapter, tmp_path, about, told):
    shutil.copytree(adapter[0], tmp_path / "lora")
    path = tmp_path / "lora/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **about}))
    with pytest.raises(InputError, match=told):
        read_card(str(tmp_path / "lora"))


def test_an_adapter_without_weights_is_told(folder, adapter):
    shutil.copy(adapter[0] / "adapter_config.json", folder)
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        read_card(str(folder))


def test_weights_that_can_run_code_have_a_way_out(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"missing; pytorch_model\.bin is of a kind that can run code"):
        read_card(str(folder))


@pytest.mark.parametrize("name", ["tf_model.h5", "flax_model.msgpack", "model.onnx", "consolidated.00.pth"])
def test_weights_of_another_program_are_named(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(InputError, match=f"missing; {name} is of (another program|a kind that can run code)"):
        read_card(str(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_in_the_place_of_a_file_is_told(folder, name):
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(InputError, match=f"{name} is a pointer of Git LFS: fetch the file itself"):
        read_card(str(folder))


@pytest.mark.parametrize("prefix", ["", "model."])
def test_weights_in_whole_numbers_are_no_weights(folder, prefix):
    weights = load_file(folder / "model.safetensors")
    stored = {name: tensor.half() for name, tensor in weights.items()}
    stored["model.layers.0.position_ids"] = torch.arange(3)  # old files hold such tables
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    load(str(folder), device="cpu")
    base_model._read_card.cache_clear()
    stored |= {name: (100 * tensor).to(torch.int8) for name, tensor in weights.items() if tensor.dim() == 2}
    stored = {name.removeprefix(prefix): tensor for name, tensor in stored.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="are whole numbers, quantised in a way"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize("template", [5, {"a": "b"}, [{"name": "default", "template": None}]])
def test_a_chat_template_that_is_no_text_is_told(folder, template):
    about = folder / "tokenizer_config.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "chat_template": template}))
    with pytest.raises(InputError, match=r"tokenizer_config\.json: a chat_template is no text"):
        read_card(str(folder))


def test_a_configuration_has_no_say_in_how_outputs_are_named(folder):
    edit_config(folder, return_dict=False, output_hidden_states=True)
    base = load(str(folder), device="cpu")
    output = base.model(IDS)
    assert output.logits.shape[:2] == IDS.shape
    assert output.hidden_states is None


def test_the_model_that_ships_keeps_the_fingerprint_of_former_versions():
    card = read_card(EMBEDDED)
    assert (
        card.fingerprint == card.former == "6a5e5ea0cc560201ab0b4827125b16df1dd93e5a86b9ff74394b88a68ea8fa4f"
    )


def test_a_release_of_a_former_version_is_this_models(folder):
    card = read_card(str(folder))
    assert card.former != card.fingerprint
    assert card.known_as(card.former)
    assert not card.known_as("0" * 64)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tokenizer: setattr(tokenizer, "eos_token", None), "no end token"),
        (lambda tokenizer: None, "tokenizer has 12 tokens, the model 8"),
    ],
    ids=["end", "size"],
)
def test_a_tokenizer_that_cannot_be_the_models_is_told_when_it_is_loaded(folder, change, told):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    change(tokenizer)
    tokenizer.save_pretrained(folder)
    if "model" in told:
        model = tiny_model("llama")
        model.resize_token_embeddings(8)
        model.save_pretrained(folder)
    with pytest.raises(InputError, match=told):
        load(str(folder), device="cpu")
