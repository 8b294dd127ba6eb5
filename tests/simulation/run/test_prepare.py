"""A run folder is prepared by one command alone, and only where nothing else is."""

import os
from pathlib import Path

import pytest
from tests.simulation.small_run import SMALL
from typer.testing import CliRunner

from fedperfit.edge.agent.history import History
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json
from fedperfit.simulation.cli import app
from fedperfit.simulation.run import clients
from fedperfit.simulation.run.job import at_work


def simulate(folder: Path) -> BaseException | None:
    sets = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}".replace("'", ""))]
    return CliRunner().invoke(app, ["simulate", "--run-dir", os.fspath(folder), *sets]).exception


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_second_of_two_commands_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[BaseException | None] = []

    def second(*_: object) -> None:
        told.append(simulate(tmp_path))
        raise InputError("the first command ends here")

    monkeypatch.setattr("fedperfit.simulation.run.clients.open_lamp", second)
    assert str(simulate(tmp_path)) == "the first command ends here"
    assert [str(one) for one in told] == [f"{tmp_path}: another process is running this run"]


def test_a_folder_that_was_only_locked_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with at_work(tmp_path):
        pass
    monkeypatch.setattr("fedperfit.simulation.run.job.run_cohorts", interrupted)
    assert isinstance(simulate(tmp_path), SystemExit)
    assert read_json(tmp_path / "settings.json")["rounds"] == 2
    assert "holds a run already" in str(simulate(tmp_path))


def test_what_was_killed_goes_on_and_what_failed_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write, ends = clients.write_history, [OSError(28, "No space left on device"), KeyboardInterrupt()]

    def ending(folder: Path, history: History) -> None:
        if folder.name == "2" and ends:
            raise ends.pop(0)
        write(folder, history)

    monkeypatch.setattr(clients, "write_history", ending)
    monkeypatch.setattr("fedperfit.simulation.run.job.run_cohorts", interrupted)
    assert isinstance(simulate(tmp_path), OSError)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    simulate(tmp_path)
    assert not (tmp_path / clients.ROSTER).exists()
    CliRunner().invoke(app, ["simulate", "--run-dir", os.fspath(tmp_path), "--resume"])
    assert len(read_json(tmp_path / clients.ROSTER)) == len(
        list((tmp_path / "clients").glob("*/client.json"))
    )


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("agent.json", '{"base-model": "emb', "line 1: broken JSON"),
        ("agent.json", "{}", "base-model: field required"),
        ("roster.json", "[]", "dict"),
        ("roster.json", "{}", "no clients"),
        ("enrolled.json", '{"a": 1}', "not a directory of keys"),
        ("0/scan.json", '{"replies": "man', "line 1: broken JSON"),
    ],
)
def test_what_all_clients_share_is_named_where_it_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: str, told: str
):
    monkeypatch.setattr("fedperfit.simulation.run.job.run_cohorts", interrupted)
    simulate(tmp_path)
    path = tmp_path / "clients" / file
    path.write_text(content)
    again = CliRunner().invoke(app, ["simulate", "--run-dir", os.fspath(tmp_path), "--resume"]).exception
    assert isinstance(again, InputError)
    assert str(again).startswith(f"{path}")
    assert told in str(again)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").write_text("")
    assert "is not empty and holds no run" in str(simulate(tmp_path))
