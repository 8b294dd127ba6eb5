from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.cli import app


@pytest.mark.parametrize("share", ["nan", "inf", "-1"])
@pytest.mark.parametrize("command", ["flower-env", "simulate"])
def test_a_share_of_a_gpu_that_is_none_is_told(command: str, share: str):
    done = CliRunner().invoke(app, [command, "--client-gpus", share])
    assert isinstance(done.exception, InputError)
    assert "expected a share of a GPU" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["simulate", "--ray-actors", "2"], "--ray-actors 2: only with --backend ray"),
        (
            ["simulate", "--backend", "flower", "--actor-gpus", "0.5"],
            "--actor-gpus 0.5: only with --backend ray",
        ),
        (["tune", "--actor-cpus", "2"], "--actor-cpus 2.0: only with --workers of more than one"),
        (
            ["audit", "runs/none", "--actor-gpus", "1"],
            "--actor-gpus 1.0: only with --workers of more than one",
        ),
    ],
)
def test_an_option_that_would_do_nothing_is_told(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith(said)
    assert not list(tmp_path.iterdir())
