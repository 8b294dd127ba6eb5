"""Scores over simulated time: in a run and its report, and of runs side by side."""

import os
from pathlib import Path

import pytest
from tests.simulation.run_folders import write_run
from tests.simulation.small_run import prepare, small_settings
from typer.testing import CliRunner

from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation import stored_models
from fedperfit.simulation.cli import app
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.run.job import run_cohorts
from fedperfit.simulation.run.runner import run_simulation
from fedperfit.simulation.run.summary import write_metrics


def run(folder: Path, **changes: object) -> Path:
    prepare(folder, small_settings(history_lengths=[], collective_sizes=[], **changes))
    stored_models._copies.cache_clear()
    run_cohorts(folder, lambda event: None)
    return folder


@pytest.mark.slow
def test_a_run_on_devices_learns_the_same_and_tells_its_scores_over_time(tmp_path: Path):
    plain, timed = run(tmp_path / "plain"), run(tmp_path / "timed", device_seconds=60.0)
    packed = [read_release(folder / FILE_NAME).packed for folder in (plain, timed)]
    assert packed[0] == packed[1]
    rounds = read_json(timed / "rounds.json")
    assert 0 < rounds[0]["seconds"] < rounds[1]["seconds"]
    assert [one | {"seconds": 0} for one in read_json(plain / "rounds.json")] == [
        one | {"seconds": 0} for one in rounds
    ]
    summary = read_json(timed / "metrics.json")
    assert [point["round"] for point in summary["time"]] == [0, 1, 2]
    assert [point["seconds"] for point in summary["time"]] == [0, *(one["seconds"] for one in rounds)]
    assert summary["time"][-1]["metrics"] == summary["stages"]["collective"]["metrics"]
    first, base = (about["metrics"]["accuracy"] for about in (summary["time"][0], summary["stages"]["base"]))
    assert first == pytest.approx(base), "the identity"
    assert "Score over simulated time" in (timed / "report.html").read_text()
    assert "time" not in read_json(plain / "metrics.json")
    assert "seconds" not in read_json(plain / "rounds.json")[0]
    assert "simulated" not in (plain / "report.html").read_text()


def timed_run(folder: Path, task: str, seconds: float) -> Path:
    """A run folder with random results, one of whose rounds took so many simulated seconds."""
    write_run(folder, task)
    for number in range(3):
        write_json(folder / "results" / f"time-{number}.json", read_json(folder / "results/history-0.json"))
    rounds = [one | {"seconds": seconds * one["round"]} for one in read_json(folder / "rounds.json")]
    write_json(folder / "rounds.json", rounds)
    write_metrics(folder)
    return folder


@pytest.mark.parametrize("name", ["both.svg", "both.png"])
def test_runs_are_drawn_side_by_side(tmp_path: Path, name: str):
    folders = [timed_run(tmp_path / one, "LaMP_2M", by) for one, by in (("waits", 700.0), ("buffered", 50.0))]
    done = CliRunner().invoke(
        app,
        ["timeline", *map(os.fspath, folders), "--out", str(tmp_path / name)],
        env={"COLUMNS": "400"},
    )
    assert done.exit_code == 0, done.output
    assert "1,400" in done.output
    drawn = (tmp_path / name).read_bytes()
    if name.endswith(".png"):
        assert drawn.startswith(b"\x89PNG")
    else:
        assert drawn.startswith(b"<svg")
        assert b'><rect width="100%" height="100%" fill="#ffffff"/>' in drawn
        assert all(str(folder).encode() in drawn for folder in folders)


def test_what_cannot_be_drawn_is_one_line(tmp_path: Path):
    timed, other = timed_run(tmp_path / "a", "LaMP_2M", 1.0), timed_run(tmp_path / "b", "LaMP_3", 1.0)
    plain = write_run(tmp_path / "plain", "LaMP_2M")
    write_metrics(plain)
    stopped = write_run(tmp_path / "stopped", "LaMP_2M")
    (tmp_path / "compared").mkdir()
    write_json(tmp_path / "compared" / SETTINGS, CompareSettings(methods=["base"]).to_flat())
    for arguments, why in (
        ([tmp_path / "compared"], "no run of `simulate`"),
        ([stopped], f"has not ended; go on with: fedperfit simulate --resume --run-dir {stopped}"),
        ([plain], "simulated no time: run it with --set device-seconds=60"),
        ([timed, other], "several tasks: LaMP_2M, LaMP_3"),
        ([timed, "--out", tmp_path / "a.pdf"], "ends in .svg or .png"),
        ([tmp_path / "nothing"], "no such file"),
    ):
        done = CliRunner().invoke(app, ["timeline", *map(os.fspath, arguments)])
        assert isinstance(done.exception, InputError)
        assert why in str(done.exception)


def test_time_is_simulated_for_open_updates_in_cohorts_only(tmp_path: Path):
    prepare(tmp_path, small_settings(device_seconds=60.0))
    with pytest.raises(InputError, match="device-seconds are simulated by --backend cohorts"):
        run_simulation(tmp_path, clients=7, client_gpus=0.0, on_event=lambda event: None)
    secure = {"update_basis": "random", "transport_dtype": "sign", "secure_aggregation": "committee"}
    with pytest.raises(InputError, match="device-seconds=60: committees take time"):
        small_settings(device_seconds=60.0, **secure)
