"""Folders of base models that name code: none of it runs, whatever somebody at the terminal says."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from tests.protocol.model.folders import edit_config
from transformers import Qwen3_5Config

from fedperfit.protocol.model import base_model, no_code
from fedperfit.protocol.model.base_model import embedded_folder, load, read_card
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json

CODE = """
from pathlib import Path
from transformers import PretrainedConfig

Path(__file__).parent.joinpath("ran").touch()
Path({mark!r}).touch()


class Own(PretrainedConfig):
    model_type = "own"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the embedded model with code in it; somebody answers every question with yes."""
    monkeypatch.setattr("builtins.input", lambda question="": "y")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "model"
    shutil.copytree(embedded_folder(), folder)
    (folder / "own.py").write_text(CODE.format(mark=str(tmp_path / "ran")))
    return folder


def ran(folder: Path) -> bool:
    for read in (read_card, load):
        with suppress(InputError):
            read(str(folder))
    return (folder.parent / "ran").exists()


def name_code(folder: Path, part: str) -> None:
    if part == "configuration":
        edit_config(folder, model_type="own", auto_map={"AutoConfig": "own.Own"})
        return
    path = folder / "tokenizer_config.json"
    code = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    write_json(path, {**read_json(path), **code})


def test_with_a_question_the_code_of_a_configuration_runs(folder, monkeypatch):
    """The positive control: what transformers does where it is told nothing."""
    name_code(folder, "configuration")
    for module in (no_code, base_model):
        monkeypatch.setattr(module, "NO_CODE", {})
    assert ran(folder)


def test_code_of_a_configuration_does_not_run(folder):
    name_code(folder, "configuration")
    assert not ran(folder)


def test_code_of_a_tokenizer_does_not_run(folder):
    name_code(folder, "tokenizer")
    with pytest.raises(InputError, match="custom code"):
        load(str(folder))
    assert not (folder.parent / "ran").exists()


@pytest.mark.parametrize("field", ["attn_implementation", "experts_implementation"])
@pytest.mark.parametrize("named", ["kernels-community/flash-attn2", "flash_attention_2", "a/b@main:c"])
def test_compiled_code_of_the_hub_is_not_fetched(folder, field, named):
    edit_config(folder, **{field: named})
    for read in (read_card, load):
        with pytest.raises(InputError, match=f"{field}='{named}': expected one of eager"):
            read(str(folder))


def test_a_nested_configuration_names_none_either(tmp_path):
    Qwen3_5Config().save_pretrained(tmp_path)
    edit_config(tmp_path, attn_implementation={"": "eager", "text_config": "someone/kernel"})
    with pytest.raises(InputError, match="attn_implementation='someone/kernel'"):
        no_code.read_config(tmp_path)


@pytest.mark.parametrize("named", ["eager", "sdpa"])
def test_what_is_installed_may_be_named(folder, named):
    edit_config(folder, attn_implementation=named)
    assert load(str(folder)).model.config._attn_implementation == named
