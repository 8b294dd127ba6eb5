"""Patterns of an adapter end: those that people write pass, those that take for ever are one line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from fedperfit.protocol.model.base_model import embedded_folder, read_card
from fedperfit.protocol.model.bounds.patterns import check_patterns
from fedperfit.protocol.system.errors import InputError

ENDLESS = r"(.+)+x"


@pytest.mark.parametrize(
    "pattern",
    [
        "all-linear",
        r".*\.(q|v)_proj",
        r"model\.layers\.\d+\.self_attn\.(q_proj|k_proj)",
        r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.q)",
        r"(model\.)?layers\.[0-9]+\.mlp",
    ],
)
def test_what_people_write_passes(pattern):
    check_patterns({"target_modules": pattern, "rank_pattern": {pattern: 8}, "exclude_modules": [pattern]})


@pytest.mark.parametrize("pattern", [ENDLESS, r"(a|a)*b", r"(.*)\1{3}", r"(x{2}){9}", ".*" * 7 + "x"])
@pytest.mark.parametrize("place", ["value", "name", "list"])
def test_what_takes_for_ever_does_not(pattern, place):
    values = {"value": {"a": pattern}, "name": {"rank_pattern": {pattern: 8}}, "list": {"a": [pattern]}}
    if pattern == r"(.*)\1{3}":
        return check_patterns(values[place])  # a repeat of what was found takes no time
    with pytest.raises(InputError, match="at most 6 repeats, and none of a group"):
        check_patterns(values[place])


def test_an_adapter_with_one_is_one_line(tmp_path):
    pytest.importorskip("peft")
    folder = shutil.copytree(embedded_folder(), tmp_path / "model")
    about = {"peft_type": "LORA", "r": 2, "target_modules": ENDLESS, "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    save_file({"a": torch.zeros(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"pattern '\(\.\+\)\+x'"):
        read_card(str(folder))
