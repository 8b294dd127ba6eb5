"""`fedperfit data people` writes into the folder that is named, and nowhere else."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import task_by_name
from fedperfit.simulation.cluster.scratch import COMMAND
from fedperfit.simulation.data.cli import data_app
from fedperfit.simulation.data.participants import participants
from fedperfit.simulation.run.clients import prepare_clients
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.world.build import WORLD
from fedperfit.simulation.world.settings import ParticipantCounts


@pytest.mark.parametrize("name", ["../../x", "..", ".", "", "a/b", "/x", "a\x00b", "a\nb"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str):
    to = tmp_path / "deep" / "people"
    words = ["people", "--task", "LaMP_2M", "--to", str(to), "ada", name]
    done = CliRunner().invoke(data_app, words)
    assert isinstance(done.exception, InputError)
    assert str(done.exception) == f"{name!r}: no name for a person's folder"
    assert not list(tmp_path.iterdir())


def test_a_name_given_twice_is_refused(tmp_path: Path):
    words = ["people", "--task", "LaMP_2M", "--to", str(tmp_path / "people"), "h\u00e9", "he\u0301"]
    done = CliRunner().invoke(data_app, words)
    assert isinstance(done.exception, InputError)
    assert str(done.exception) == "'h\u00e9' is named twice: each person has a folder of their own"
    assert not list(tmp_path.iterdir())


def test_a_world_that_is_made_for_one_command_leaves_no_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = CliRunner().invoke(
        data_app, ["people", "--task", "LaMP_2M", "--to", str(tmp_path / "people"), "ada"]
    )
    assert done.exit_code == 0, done.exception
    folder = tmp_path / "run"
    settings = RunSettings.from_some(read_preset("quickstart"))
    prepare_clients(settings.replace(others=2, targets=1, new=1, world_history=64), folder)
    sizes = ParticipantCounts(others=2, targets=1, world_history=4, world_questions=1)
    participants(task_by_name("LaMP_2M"), WORLD, sizes, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people", "run"]
    assert not list(folder.rglob("*.arrow"))


def test_the_world_that_a_killed_command_left_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    (tmp_path / f"{COMMAND}{gone.pid}-left").mkdir()
    words = ["people", "--task", "LaMP_2M", "--to", str(tmp_path / "people"), "ada"]
    assert CliRunner().invoke(data_app, words).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["people"]


def test_a_cache_that_cannot_be_written_is_told_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    example = Path(__file__).parents[3] / "examples" / "own_task"
    words = ["show", str(example / "mails.toml"), "--task", str(example / "urgency.toml")]
    done = CliRunner().invoke(data_app, words)
    assert isinstance(done.exception, InputError)
    assert "the environment variable XDG_CACHE_HOME names another folder" in str(done.exception)
    (tmp_path / "mails.toml").write_text('file = "none.csv"\nuser = "person"\ntarget = "answered"\n')
    done = CliRunner().invoke(data_app, [words[0], str(tmp_path / "mails.toml"), *words[2:]])
    assert str(done.exception) == f"{tmp_path / 'none.csv'}: No such file or directory"
