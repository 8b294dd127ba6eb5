"""Runs against others: paired over people, pooled over pairs, and never over other people."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.simulation.run_folders import write_run
from typer.testing import CliRunner

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.simulation.cli import app
from fedperfit.simulation.finished.differences import Difference, differences
from fedperfit.simulation.run.summary import METRICS, write_metrics

TASK = "LaMP_2M"


def scores(folder: Path, phase: str) -> np.ndarray:
    """Share of right answers of each person."""
    results: dict[str, Any] = read_json(folder / "results" / f"{phase}.json")
    return np.array([one["metrics"]["correct"] / one["items"] for one in results.values()])


def row_of(rows: list[Difference], phase: str) -> Difference:
    (row,) = [row for row in rows if row.phase == phase]
    return row


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A run whose personal stage knows its people, and one that guesses."""
    run = write_run(tmp_path / "run", TASK, users=12, answers={"personal": "bayes"})
    return run, write_run(tmp_path / "other", TASK, users=12)


def test_a_difference_is_paired_over_people(pair: tuple[Path, Path]):
    main, rows = differences([pair])
    row = row_of(rows, "evaluate-personal")
    run, other = (scores(folder, row.phase) for folder in pair)
    assert (main, row.people) == ("accuracy", 12)
    assert (row.value, row.other) == pytest.approx((run.mean(), other.mean()))
    drawn = np.random.default_rng(7).integers(12, size=(4000, 12))
    assert row.interval == pytest.approx(np.quantile((run - other)[drawn].mean(1), (0.025, 0.975)), abs=0.04)
    assert row.limit is None
    assert [row.phase for row in rows] == [
        *("evaluate-base", "evaluate-collective", "evaluate-personal"),
        *("history-0", "history-4", "collective-10", "collective-10-personal"),
    ]


def with_limit(folder: Path) -> Path:
    """Say that the best answer after four items is the right one to every question but the first."""
    bounds: dict[str, Any] = read_json(folder / "bounds.json")
    best = {user: {"4": ["none", *(one["gold"] for one in answers[1:])]} for user, answers in bounds.items()}
    write_json(folder / "limit.json", best)
    return folder


def test_a_share_is_of_the_way_from_the_other_run_to_the_limit(pair: tuple[Path, Path]):
    for folder in pair:
        with_limit(folder)
    _, rows = differences([pair])
    row = row_of(rows, "history-4")
    run, other = (scores(folder, "history-4").mean() for folder in pair)
    assert row.limit == pytest.approx(0.9)
    assert row.share is not None
    assert row.share[0] == pytest.approx((run - other) / (0.9 - other))
    assert row.share[1] <= row.share[0] <= row.share[2]
    assert row_of(rows, "history-0").share is None
    write_metrics(pair[0])  # the report's own share is of the way from the collective shift
    (point,) = [one for one in read_json(pair[0] / METRICS)["history"] if one["size"] == 4]
    alone = scores(pair[0], "history-0").mean()
    assert point["share"]["value"] == pytest.approx((run - alone) / (0.9 - alone))


def test_pairs_are_pooled(pair: tuple[Path, Path], tmp_path: Path):
    second = tuple(
        write_run(tmp_path / name, TASK, users=4, answers=answers, name="new-{}")
        for name, answers in (("more", {"personal": "unknown"}), ("beside", {"personal": "bayes"}))
    )
    _, rows = differences([pair, (second[0], second[1])])
    row = row_of(rows, "evaluate-personal")
    runs, others = ([scores(two[side], row.phase) for two in (pair, second)] for side in (0, 1))
    assert row.people == 16
    assert row.value == pytest.approx(np.concatenate(runs).mean())
    assert row.other == pytest.approx(np.concatenate(others).mean())


def test_other_people_other_questions_and_other_tasks_are_refused(pair: tuple[Path, Path], tmp_path: Path):
    run, other = pair
    strangers = write_run(tmp_path / "strangers", TASK, users=12, name="new-{}")
    with pytest.raises(InputError, match="not over the same people"):
        differences([(run, strangers)])
    bounds: dict[str, Any] = read_json(other / "bounds.json")
    bounds["targets-0"][0]["gold"] = "another"
    write_json(other / "bounds.json", bounds)
    with pytest.raises(InputError, match="not over the same people"):
        differences([(run, other)])
    with pytest.raises(InputError, match="of several tasks: LaMP_2M, LaMP_3"):
        differences([(run, write_run(tmp_path / "ratings", "LaMP_3"))])
    with pytest.raises(InputError, match="no such file"):
        differences([(run, tmp_path / "nothing")])
    begun = write_run(tmp_path / "begun", TASK)
    for result in (begun / "results").iterdir():
        result.unlink()
    with pytest.raises(InputError, match="begun: nobody's answers were scored"):
        differences([(run, begun)])


def test_the_command_prints_a_table_or_one_line(pair: tuple[Path, Path]):
    run, other = map(str, pair)
    told = CliRunner().invoke(app, ["difference", "--run", run, "--other", other])
    assert told.exit_code == 0, told.output
    assert "evaluate-personal" in told.output
    assert "accuracy (higher is better)" in told.output
    lone = CliRunner().invoke(app, ["difference", "--run", run, "--run", run, "--other", other])
    assert isinstance(lone.exception, InputError)
    assert "2 --run and 1 --other" in str(lone.exception)


def reworded(folder: Path, *changes: tuple[str, str]) -> Path:
    """Have the run's task be that of a file, which is the shipped one's but for these changes."""
    text = (Path(__file__).parents[3] / "configs" / "tasks" / f"{TASK}.toml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    settings: dict[str, Any] = read_json(folder / "settings.json")
    write_json(folder / "settings.json", settings | {"task": text})
    return folder


def test_a_file_that_words_the_task_otherwise_is_compared_with_it(pair: tuple[Path, Path]):
    run, other = pair
    expected = differences([pair])
    assert differences([(reworded(run, ("Which tag", "What tag")), other)]) == expected
    reworded(run, ('"accuracy", "f1"', '"f1"'))
    with pytest.raises(InputError, match="of several tasks: LaMP_2M, LaMP_2M-"):
        differences([pair])
