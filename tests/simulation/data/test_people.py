"""`fedperfit data people` writes into the folder that is named, and nowhere else."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.data.cli import data_app


@pytest.mark.parametrize("name", ["../../x", "..", ".", "", "a/b", "/x", "a\x00b", "a\nb"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str):
    to = tmp_path / "deep" / "people"
    words = ["people", "--task", "LaMP_2M", "--to", str(to), "ada", name]
    done = CliRunner().invoke(data_app, words)
    assert isinstance(done.exception, InputError)
    assert str(done.exception) == f"{name!r}: no name for a person's folder"
    assert not list(tmp_path.iterdir())
