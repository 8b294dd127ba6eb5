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
