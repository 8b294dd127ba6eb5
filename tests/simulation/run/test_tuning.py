import pytest
from tests.simulation.small_run import SMALL, run_locally, small_settings
from typer.testing import CliRunner

from fedperfit.cloud.job.events import EVENTS
from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.history import read_history
from fedperfit.edge.engine.items import ItemCache
from fedperfit.protocol.messages.settings import Stage
from fedperfit.protocol.model.base_model import load
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json_lines
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.simulation.cli import app
from fedperfit.simulation.client_app import CLIENTS
from fedperfit.simulation.run.clients import OTHERS, prepare_clients
from fedperfit.simulation.run.settings import TuneSettings
from fedperfit.simulation.run.tuning import _hold_out, begin, run_tuning, settings_of_run


def test_trials_score_held_out_items_of_others_only(tmp_path, monkeypatch):
    """Targets' folders are never opened."""
    opened = []
    from fedperfit.simulation.run import tuning

    original = tuning.Agent

    def recording(folder, base, items):
        opened.append(folder)
        return original(folder, base, items)

    monkeypatch.setattr(tuning, "Agent", recording)
    settings = TuneSettings.read("quickstart", SMALL | {"rates": [1e-6, 1e-2], "epochs": [4], "users": 2})
    told = []
    begin(tmp_path / "run", settings)
    trials = run_tuning(tmp_path / "run", told.append)
    assert [trial.learning_rate for trial in trials] == [1e-6, 1e-2]
    assert trials[0].score == trials[0].without, "a rate of nothing changes nothing"
    assert [folder.name for folder in opened] == ["0", "1"]
    assert read_json_lines(tmp_path / "run" / EVENTS) == told
    assert [event["event"] for event in told] == ["start", "trial", "trial", "figures", "done"]
    assert [event["score"] for event in told[1:3]] == [trial.score for trial in trials]
    assert told[3]["figures"]["score"] == max(trial.score for trial in trials)
    with pytest.raises(InputError, match="is not empty: --resume continues what was begun in it"):
        begin(tmp_path / "run", settings)


def test_a_killed_tuning_goes_on_and_a_finished_one_is_told_again(tmp_path, monkeypatch):
    from fedperfit.simulation.run import tuning

    settings = TuneSettings.read("quickstart", SMALL | {"rates": [1e-6, 1e-2], "epochs": [1], "users": 2})
    begin(tmp_path / "whole", settings)
    whole = run_tuning(tmp_path / "whole", lambda event: None)

    def killing(event):
        if event["event"] == "trial":
            raise KeyboardInterrupt

    begin(tmp_path / "run", settings)
    with pytest.raises(KeyboardInterrupt):
        run_tuning(tmp_path / "run", killing)
    told = []
    assert run_tuning(tmp_path / "run", told.append) == whole
    assert [event["event"] for event in told] == ["start", "trial", "trial", "figures", "done"]
    monkeypatch.setattr(tuning, "TuningWorker", None)
    assert run_tuning(tmp_path / "run", told.append) == whole
    done = CliRunner().invoke(app, ["tune", "--resume", "--run-dir", str(tmp_path / "run")])
    assert (done.exit_code, done.output.count("rate ")) == (0, 2)
    refused = CliRunner().invoke(
        app, ["tune", "--resume", "--run-dir", str(tmp_path / "run"), "--users", "3"]
    )
    assert "leave the other options out" in str(refused.exception)


def test_personal_shifts_are_tuned_on_the_collective_shift_of_a_finished_run(tmp_path):
    changes = {"rounds": 1, "collective_learning_rate": 1e-2}
    run_locally(tmp_path / "run", small_settings(**changes, history_lengths=[], collective_sizes=[]))
    settings = settings_of_run(tmp_path / "run", {"rates": [1e-6], "epochs": [1], "users": 2})
    assert settings.rounds == 1, "the run's settings"
    release = (tmp_path / "run" / FILE_NAME).read_bytes()
    base = load(settings.base_model)
    roster = prepare_clients(settings, tmp_path / "same")
    others = [index for index, about in enumerate(roster.values()) if about["group"] == OTHERS][:2]
    agents = []
    for index in others:
        _hold_out(tmp_path / "same" / CLIENTS / str(index))
        agents.append(Agent(tmp_path / "same" / CLIENTS / str(index), base, ItemCache(base)))
    expected = {
        stage: [agent.evaluate(release, settings.evaluation(stage, "tuning")).metrics for agent in agents]
        for stage in (Stage.BASE, Stage.COLLECTIVE)
    }
    right = {stage: sum(metrics["correct"] for metrics in found) for stage, found in expected.items()}
    assert right[Stage.BASE] != right[Stage.COLLECTIVE]
    begin(tmp_path / "tuned", settings, release)
    (trial,) = run_tuning(tmp_path / "tuned", lambda event: None)
    assert trial.without == trial.score == right[Stage.COLLECTIVE] / 4
    with pytest.raises(InputError, match="no finished run"):
        settings_of_run(tmp_path / "tuned", {})


def test_the_latest_quarter_is_held_out(tmp_path):
    roster = prepare_clients(small_settings(), tmp_path)
    index = [about["group"] for about in roster.values()].index(OTHERS)
    folder = tmp_path / CLIENTS / str(index)
    before = read_history(folder)
    _hold_out(folder)
    after = read_history(folder)
    assert after.items == before.items[:6]
    assert [question["gold"] for question in after.questions] == [item["tag"] for item in before.items[6:]]
    assert after.answered == []


@pytest.mark.parametrize("share", [True, False])
def test_clients_of_a_world(tmp_path, share):
    settings = small_settings(share_metrics=share)
    roster = prepare_clients(settings, tmp_path)
    assert len(roster) == settings.others + settings.targets + settings.new
    histories = [read_history(tmp_path / CLIENTS / str(index)) for index in range(len(roster))]
    assert [history.name for history in histories] == list(roster)
    assert all(history.shares_metrics is share for history in histories)
    for history, about in zip(histories, roster.values(), strict=True):
        contributes = about["group"] == OTHERS
        assert bool(history.answered) is contributes
        assert bool(history.questions) is not contributes
    assert prepare_clients(settings, tmp_path) == roster


def test_a_history_that_leaves_nothing_to_fit_is_told_before_the_work():
    with pytest.raises(InputError, match="world-history=1: at least 2"):
        TuneSettings.read("quickstart", SMALL | {"world-history": 1})
