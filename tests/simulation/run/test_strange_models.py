"""What every command says of a base model that answers with numbers that are none."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from fedperfit.protocol.model.base_model import embedded_folder
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.cli import app

_FEW = ["others=4", "targets=2", "new=1", "rounds=1", "clients-per-round=2", "world-history=8"]
_RUN = [word for value in [*_FEW, "update-basis=none"] for word in ("--set", value)]
_COMPARE = ["--methods", "oppu,base", "--seeds", "0", "--users", "1", "--others", "8", "--draws", "1"]


@pytest.fixture(scope="session")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are finite, and whose logits are not."""
    folder = tmp_path_factory.mktemp("models") / "overflowing"
    shutil.copytree(embedded_folder(), folder)
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if name.endswith(("up_proj.weight", "gate_proj.weight")):
            weights[name] = tensor * 1e30
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", *_RUN],
        ["compare", *_COMPARE, "--workers", "1"],
        ["analyze", "--users", "8"],
        ["tune", *_RUN],
        ["basis", "out.basis"],
        ["prior", "out.scatter", "--people", "2", "--set", "update-basis=random"],
    ],
    ids=lambda words: words[0],
)
def test_numbers_that_are_not_finite_end_a_command_in_one_line(
    overflowing: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    model = ["--set", f"base-model={overflowing}"]
    with pytest.raises(InputError, match="its logits are not finite") as caught:
        app([*words, *model], standalone_mode=False)
    assert "\n" not in str(caught.value)
    assert "could not answer" not in "".join(capfd.readouterr())
