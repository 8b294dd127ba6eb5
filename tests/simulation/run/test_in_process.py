"""Federations in process over histories in memory."""

import json
from dataclasses import replace
from importlib import resources

import pytest
import torch
from tests.simulation.small_run import prepare, small_settings

from fedperfit.edge.agent.history import History, read_history
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.tasks import task_by_name
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation.client_app import CLIENTS
from fedperfit.simulation.run.in_process import run_federation
from fedperfit.simulation.run.job import run_cohorts

pytestmark = pytest.mark.slow  # for what its tests share, whichever comes first

ROUNDS = {"rounds": 2, "clients-per-round": 2}


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A whole small study: its folder, and the histories of its others."""
    folder = tmp_path_factory.mktemp("study") / "run"
    prepare(folder, small_settings(history_lengths=[], collective_sizes=[]))
    run_cohorts(folder, lambda event: None)
    return folder, [read_history(folder / CLIENTS / str(number)) for number in range(3)]


def federate(histories, **options):
    settings = {**ROUNDS, "device": "cpu", "dtype": "float32"} | options.pop("settings", {})
    return run_federation(histories, settings=settings, **options)


def test_it_is_the_federation_of_a_study_to_the_bit(study):
    folder, histories = study
    result = federate(histories)
    release = read_release(folder / FILE_NAME)
    assert pack(result.shift, result.header) == release.packed
    assert result.header == release.header
    assert [report.to_json() for report in result.rounds] == json.loads((folder / "rounds.json").read_text())


def test_a_task_of_ones_own_that_says_the_same_learns_the_same(tmp_path, study):
    _, histories = study
    text = (resources.files("fedperfit.configs") / "tasks" / "LaMP_2M.toml").read_text()
    task = task_by_name(text.replace("LaMP_2M", "Films"))
    own = federate([replace(history, task=task) for history in histories], folder=tmp_path)
    shipped = federate(histories)
    assert own.header.task == task.id != shipped.header.task == "LaMP_2M"
    assert torch.equal(torch.cat([own.shift.R, own.shift.W]), torch.cat([shipped.shift.R, shipped.shift.W]))
    assert task_by_name(json.loads((tmp_path / "settings.json").read_text())["task"]) == task


def test_a_killed_federation_goes_on_where_it_was(tmp_path, study):
    _, histories = study
    whole = federate(histories)

    def dying(event):
        if event["event"] == "round":
            raise Killed

    with pytest.raises(Killed):
        federate(histories, folder=tmp_path, on_event=dying)
    rounds = []
    again = federate(histories, folder=tmp_path, on_event=lambda e: rounds.append(e.get("round")))
    assert [number for number in rounds if number] == [2]
    for name in ("R", "W", "b"):
        assert torch.equal(getattr(again.shift, name), getattr(whole.shift, name))


def test_without_a_folder_nothing_stays_on_disk(study, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    federate(study[1])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_another_federation_is_refused(study, tmp_path):
    federate(study[1], folder=tmp_path)
    with pytest.raises(InputError, match="other settings"):
        federate(study[1], folder=tmp_path, settings={"rounds": 3})
    with pytest.raises(InputError, match="other histories"):
        federate(study[1][:2], folder=tmp_path)


def test_histories_that_make_no_federation_are_refused(study):
    _, histories = study
    with pytest.raises(InputError, match="at least one history"):
        federate([])
    with pytest.raises(InputError, match="same name"):
        federate([histories[0], histories[0]])
    with pytest.raises(InputError, match="several tasks"):
        federate([histories[0], replace(histories[1], task=task_by_name("LaMP_3"))])


def test_a_federation_in_which_nobody_could_train_fails(study):
    _, histories = study
    with pytest.raises(RunFailed, match="no round had the updates"):
        federate([History("nobody", histories[0].task, [])])
