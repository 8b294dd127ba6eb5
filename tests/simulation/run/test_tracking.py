"""What trackers get of a whole run: its figures and plots, and nothing of a person."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.leaks import found_in, rows_coded
from tests.simulation.run_folders import write_run
from tests.simulation.small_run import prepare, small_settings

from fedperfit.cloud.job.events import EVENTS
from fedperfit.cloud.tracking import sink
from fedperfit.cloud.tracking.names import TrackerName
from fedperfit.cloud.tracking.sink import tracked
from fedperfit.cloud.tracking.tracker import End, Results, Tracker
from fedperfit.edge.agent.history import read_history
from fedperfit.protocol.system.files import read_json, read_json_lines
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation.client_app import CLIENTS
from fedperfit.simulation.run.job import run_cohorts
from fedperfit.simulation.run.report import pictures
from fedperfit.simulation.run.summary import final_figures, write_metrics


class Kept(Tracker):
    """Keeps all that it gets, for the test to search."""

    name = "tensorboard"
    got: list[object]
    pictures: Mapping[str, bytes]

    def begin(self, known: str) -> None:
        Kept.got = [self.run.command, self.run.folder.name, dict(self.run.settings)]

    def figures(self, series: str, step: int, values: Mapping[str, float]) -> None:
        Kept.got.append([series, step, dict(values)])

    def results(self, results: Results) -> None:
        Kept.got.append([dict(results.figures), results.report])
        Kept.pictures = results.pictures

    def close(self, end: End) -> None:
        Kept.got.append(end)


@pytest.mark.slow
def test_a_run_is_followed_and_nobody_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "TRACKERS", {Kept.name: Kept})
    monkeypatch.setattr(sink, "import_module", lambda name: None)
    folder = tmp_path / "run"
    clients = prepare(folder, small_settings(history_lengths=[], collective_sizes=[]))
    with tracked([TrackerName.TENSORBOARD], "simulate", pictures) as follow:
        run_cohorts(folder, follow)
    events = read_json_lines(folder / EVENTS)
    losses = [[one["phase"], one["round"], one["loss"]] for one in events if one["event"] == "round"]
    told = [one for one in Kept.got if isinstance(one, list)]
    assert [[*one[:2], one[2]["loss"]] for one in told if one[0] == "train"] == losses
    figures = told[-2][0] if told[-1][0] == "memory" else told[-1][0]
    accuracy = read_json(folder / "metrics.json")["stages"]["personal"]["metrics"]["accuracy"]
    assert figures["stages/personal/metrics/accuracy/value"] == accuracy["value"]
    assert Kept.got[-1] is End.FINISHED
    assert "By stage" in Kept.pictures
    assert "User by user" not in Kept.pictures
    histories = [read_history(folder / CLIENTS / str(number)) for number in range(clients)]
    shift = read_release(folder / FILE_NAME).shift
    secret = rows_coded("R", shift.R.flatten(0, -2)) | rows_coded("W", shift.W.flatten(0, -2))
    for history in histories:
        secret[history.name] = history.name.encode()
        for number, item in enumerate(history.items):
            secret |= {f"{history.name} {number} {key}": str(value).encode() for key, value in item.items()}
    recorded = json.dumps(Kept.got, default=str).encode() + b"".join(Kept.pictures.values())
    assert found_in(recorded, secret) == set()
    assert not [name for history in histories if (name := history.name).encode() in recorded]
    leak = next(iter(secret.values()))
    assert found_in(recorded + leak, secret)


def test_final_figures_and_plots_are_of_no_single_user(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "LaMP_2M")
    write_metrics(folder)
    summary = read_json(folder / "metrics.json")
    figures = final_figures(summary)
    point = summary["history"][1]
    assert figures["history/4/metrics/accuracy/low"] == point["metrics"]["accuracy"]["low"]
    assert not [name for name in figures if "targets-" in name or "others-" in name]
    plots = pictures(folder)
    assert set(plots) == {
        *("By stage", "Cold start by history", "Cold start by collective clients"),
        *("Collective training", "What travels"),
    }
    assert all(plot.png().startswith(b"\x89PNG") for plot in plots.values())
