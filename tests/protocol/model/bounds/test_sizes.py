"""A model of absurd sizes is one line, at once, and nothing of its size is built."""

import json
import time

import psutil
import pytest
import torch
from safetensors.torch import save_file
from tests.protocol.model.folders import edit_config

from fedperfit.protocol.model.base_model import load, read_card
from fedperfit.protocol.model.bounds import sizes
from fedperfit.protocol.model.bounds.sizes import bounded_by, check_depth
from fedperfit.protocol.system.errors import InputError


def refused(folder, why, read=load):
    begun = time.monotonic()
    with pytest.raises(InputError, match=why) as caught:
        read(str(folder))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"vocab_size": 10**12}, "more than 16 times what its files hold"),
        ({"intermediate_size": 10**12}, "more than 16 times what its files hold"),
        ({"num_hidden_layers": 10**4}, "more than 16 times what its files hold"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000: at most 10000 layers"),
        ({"num_hidden_layers": 10**400}, "num_hidden_layers=10000000000000000000: at most 10000 layers"),
    ],
    ids=range(5),
)
def test_a_configuration_far_beyond_its_weights(folder, changes, why):
    edit_config(folder, **changes)
    refused(folder, why)


def test_layers_are_counted_before_lists_of_them_are_made(folder):
    edit_config(folder, model_type="qwen2", num_hidden_layers=10**11)
    refused(folder, "at most 10000 layers", read_card)
    check_depth({"text_config": {"num_layers": 400}, "layers_block_type": ["mamba"], "layer_scale": True})
    with pytest.raises(InputError, match="encoder_layers"):
        check_depth([{"text_config": {"encoder_layers": 10**6}}])


def test_weights_of_more_tensors_than_any_model_has(folder, monkeypatch):
    monkeypatch.setattr("fedperfit.protocol.model.stored.MOST_TENSORS", 3)
    refused(folder, "model.safetensors: more than 3 tensors", read_card)


def test_a_model_of_more_tensors_than_any_has(monkeypatch):
    monkeypatch.setattr(sizes, "MOST_TENSORS", 10)
    with pytest.raises(InputError, match="more than 10 tensors"), bounded_by(10**9):
        torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(10**9))
    torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(20)), "outside of the block there is no bound"


def test_weights_that_cannot_be_mapped(folder, monkeypatch):
    def fail(*about, **more):
        raise RuntimeError("unable to mmap 214748364890 bytes")

    monkeypatch.setattr("fedperfit.protocol.model.stored.safe_open", fail)
    refused(folder, "model.safetensors: unable to mmap", read_card)


def test_weights_that_the_memory_has_no_room_for(folder, monkeypatch):
    free = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    refused(folder, "its weights take 0.0 GiB, and 0.0 GiB are free")
    load(str(folder), device="meta")  # they do not stay in this memory, as they do not on a GPU


def test_an_adapter_far_beyond_its_weights(folder):
    pytest.importorskip("peft")
    about = {"peft_type": "LORA", "r": 10**7, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(1, 1)}, folder / "adapter_model.safetensors")
    refused(folder, "more than 16 times what its files hold")
