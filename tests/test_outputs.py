"""What cannot be written to is refused before any work, by every command that writes a file or a folder."""

import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fedperfit.cloud.cli.main import app as cloud
from fedperfit.edge.cli.main import app as edge
from fedperfit.simulation.cli import app as simulation

OTHER = "nothing"
"""Stands where a command reads something; there is no such thing."""


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (simulation, ["basis"]),
        (simulation, ["benchmark", "--out"]),
        (simulation, ["timeline", OTHER, "--out"]),
        (cloud, ["policy", OTHER]),
        (cloud, ["enroll", OTHER, "ada", "--out"]),
        (cloud, ["release", "import-pyreft", ".", "--key", OTHER]),
        (edge, ["export-shift", OTHER]),
    ],
)
def test_a_folder_is_no_file(tmp_path: Path, app: typer.Typer, words: list[str]):
    done = CliRunner().invoke(app, [*words, os.fspath(tmp_path)], env={"COLUMNS": "400"})
    assert done.exit_code == 2
    assert "is a directory" in done.output


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (cloud, ["release", "export", OTHER]),
        (cloud, ["release", "publish", OTHER]),
        (simulation, ["data", "people", "ada", "--task", "LaMP_3", "--to"]),
        (simulation, ["data", "download", "--task", "LaMP_3", "--to"]),
        *((simulation, [name, "--run-dir"]) for name in ("simulate", "compare", "analyze", "tune")),
    ],
)
def test_a_file_is_no_folder(tmp_path: Path, app: typer.Typer, words: list[str]):
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, [*words, os.fspath(tmp_path / "file")], env={"COLUMNS": "400"})
    assert done.exit_code == 2
    assert "is a file" in done.output
