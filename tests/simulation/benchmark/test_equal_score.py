"""Passes and seconds at equal score: who is fitted, which fits are equal, and what the table says."""

import pytest
from rich.console import Console
from tests.simulation.run_folders import write_run
from tests.simulation.small_run import run_locally, small_settings

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json
from fedperfit.simulation.benchmark.parts import equal_score
from fedperfit.simulation.benchmark.record import Record

RUN = {
    "update_basis": "random",
    "personal_basis": "update",
    "collective_learning_rate": 1e-2,
    "history_lengths": [],
    "collective_sizes": [],
}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(equal_score, "ITEMS", 4)
    monkeypatch.setattr(equal_score, "PEER_PASSES", (1,))
    monkeypatch.setattr(equal_score, "RATES", (1e-2,))
    monkeypatch.setattr(equal_score, "PASSES", 2)


def record(folder) -> Record:
    return Record(folder / "benchmark.json", {}, lambda name, figures: None, {})


@pytest.mark.usefixtures("quick")
def test_new_people_of_a_run_are_fitted_in_every_way(tmp_path):
    run = tmp_path / "run"
    run_locally(run, small_settings(people_prior=True, **RUN))
    rows = equal_score.run(run, 8, 1, record(tmp_path))
    free, under = rows[0], rows[1]
    assert [row["way"] for row in rows] == ["PerFit", "under the prior", "pyreft", "LoRA r=8"]
    assert {row["people"] for row in rows} == {2}, "the world's new users"
    assert free["wanted"] == free["tried"][-1]["score"]
    assert [one["passes"] for one in under["tried"]] == [1, 2]
    assert all(0 <= one["score"] <= 1 and one["seconds_per_user"] > 0 for one in under["tried"])
    kept = read_json(tmp_path / "benchmark.json")["measurements"]
    assert equal_score.run(run, 8, 1, record(tmp_path)) == rows, "measurements on file are not taken again"
    assert kept == read_json(tmp_path / "benchmark.json")["measurements"]


def test_a_run_without_a_prior_is_refused(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        equal_score.run(write_run(tmp_path / "open", "LaMP_2M"), 8, 1, record(tmp_path))
    run = tmp_path / "run"
    run_locally(run, small_settings(**RUN))
    with pytest.raises(InputError, match="no prior over people"):
        equal_score.run(run, 8, 1, record(tmp_path))


def test_the_table_says_who_reaches_perfit_and_when():
    def row(way: str, *scores: float) -> dict:
        tried = [
            {"passes": 2 * n, "rate": 0.1, "seconds_per_user": 0.1 * n, "score": score}
            for n, score in enumerate(scores, 1)
        ]
        good = [one for one in tried if one["score"] >= 0.8]
        about = {"wanted": 0.8, "people": 3, "metric": "accuracy"}
        return {"way": way, "tried": tried, "reached": good[0] if good else None, **about}

    rows = [row("PerFit", 0.85, 0.7, 0.8), row("fast", 0.7, 0.81, 0.9), row("slow", 0.1, 0.2)]
    rows.append({**row("lacking"), "error": "cannot be imported"})
    console = Console(width=140, record=True)
    console.print(equal_score.table(rows))
    lines = [line.split() for line in console.export_text().splitlines()]
    shown = {line[1]: line for line in lines if len(line) > 3 and line[0] == "│"}
    assert "0.800" in shown["PerFit"], "PerFit's own row is that of its whole fit"
    assert shown["fast"][3:10:2] == ["4", "0.200", "0.810", "1.50x"]
    assert "not" in shown["slow"]
    assert "measured" in shown["lacking"]
