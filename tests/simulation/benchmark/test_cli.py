import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.benchmark.benchmark_cases import TINY
from typer.testing import CliRunner

from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.benchmark.measure import Figures
from fedperfit.simulation.benchmark.origin import commit
from fedperfit.simulation.benchmark.parts import (
    agent,
    decoding,
    orthonormal,
    rounds,
    scaling,
    secure_sums,
    training,
)
from fedperfit.simulation.benchmark.parts.one_round import measured_round
from fedperfit.simulation.benchmark.record import Record
from fedperfit.simulation.cli import app

SMALL = ["--layers", "4", "--hidden-size", "32", "--heads", "4", "--device", "cpu", "--threads", "1"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was measured; every contender takes a second per epoch and user, ours a tenth."""
    seen: list[str] = []

    def measure(contender: str, model: Any, workload: Any, *, threads: int) -> Figures:
        seen.append(contender)
        if contender == "pyreft":
            raise InputError("pyreft cannot be imported: pip install it")
        return Figures(0.1 if contender == "engine" else 1.0, 5_000_000, 1000)

    monkeypatch.setattr(training, "measure", measure)
    monkeypatch.setattr(scaling, "measure", measure)
    monkeypatch.setattr(orthonormal, "HIDDEN_SIZE", 64)
    monkeypatch.setattr(decoding, "NEW_TOKENS", 2)
    monkeypatch.setattr(secure_sums, "CLIENTS", (10,))
    monkeypatch.setattr(rounds, "CELLS", [(form, 3, 0) for form in rounds.FORMS])
    monkeypatch.setattr(rounds, "_apart", lambda form, replies: measured_round(rounds.FORMS[form], replies))
    monkeypatch.setattr(agent, "ROUNDS", 1)
    monkeypatch.setattr(agent, "ASKED", 14)  # twice: more than an agent answers in a burst
    return seen


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["benchmark", *arguments])


def test_every_part_prints_its_table_and_leaves_its_figures(tmp_path: Path, measured: list[str]) -> None:
    out = tmp_path / "benchmark.json"
    result = run(*SMALL, "--tasks", "LaMP_2M,LaMP_4", "--scaling-users", "10,100", "--out", str(out))
    assert result.exit_code == 0, result.output
    for title in (
        "training a personal shift",
        "decoding",
        "scaling",
        "orthonormal rows",
        "secure sums",
        "one round",
    ):
        assert title in result.output
    content = json.loads(out.read_text())
    assert [(row["task"], row["positions"]) for row in content["training"]] == [
        *(("LaMP_2M", "l7"), ("LaMP_2M", "f7+l7"), ("LaMP_4", "l7"), ("LaMP_4", "f7+l7"))
    ]
    row = content["training"][0]["contenders"]
    assert row["plain"]["speed_up"] == pytest.approx(10)
    assert row["plain"]["share_of_bound"] == pytest.approx(10 / row["plain"]["bound"])
    assert row["lora-checkpointing"]["bound"] == pytest.approx(1.5 * row["lora"]["bound"])
    assert "pip install" in row["pyreft"]["error"]
    assert content["decoding"][0]["token_ms"] > 0
    assert [entry["users"] for entry in content["scaling"]] == [10, 100]
    assert len(content["orthonormal"]) == 2


def test_a_run_goes_on_where_it_was_and_refuses_other_settings(tmp_path: Path, measured: list[str]) -> None:
    out = str(tmp_path / "benchmark.json")
    arguments = [*SMALL, "--tasks", "LaMP_4", "--positions", "l7", "--parts", "training", "--out", out]
    assert run(*arguments).exit_code == 0
    assert measured == ["engine", "plain", "pyreft", "lora", "lora-checkpointing"]
    assert run(*arguments).exit_code == 0
    assert len(measured) == 5, "nothing is measured twice"
    other = run(*arguments, "--items", "4")
    assert isinstance(other.exception, InputError)
    assert "other settings" in str(other.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "LaMP_9"], "unknown 'LaMP_9'"),
        (["--contenders", "adam"], "unknown 'adam'"),
        (["--parts", "all"], "unknown 'all'"),
        (["--parts", "equal-score"], "equal-score needs --run-dir"),
        (["--threads", "0"], "threads=0"),
        (["--scaling-users", "10,many"], "'many' is not a number"),
        (["--positions", "m7"], "positions='m7'"),
        (["--items", "0"], "items=0"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, measured: list[str], arguments: list[str], message: str
) -> None:
    result = run(*SMALL, *arguments, "--out", str(tmp_path / "benchmark.json"))
    assert isinstance(result.exception, InputError), result.output
    assert message in str(result.exception)
    assert not measured


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.json"
    path.write_text("[1]")
    with pytest.raises(InputError, match="not a file of benchmark measurements"):
        Record(path, {}, lambda name, figures: None, {})


def test_a_shift_costs_nothing_per_decoded_token_in_layers_run(tmp_path: Path) -> None:
    """Timings are for the table; here: the same rows for both stages, from real generation."""
    record = Record(tmp_path / "r.json", {}, lambda name, figures: None, {})
    rows = decoding.run(replace(TINY, layers=2), "LaMP_4", 1, record)
    assert [row["stage"] for row in rows] == ["base model alone", "personal shift"]
    assert all(row["token_ms"] > 0 for row in rows)


def test_our_retraction_is_what_is_timed() -> None:
    assert orthonormal._ours(4, users=2) > 0
    assert orthonormal._torch(2) > 0


def test_a_file_says_where_its_figures_come_from(tmp_path: Path, measured: list[str]) -> None:
    out = tmp_path / "benchmark.json"
    arguments = [*SMALL, "--tasks", "LaMP_4", "--positions", "l7", "--parts", "training", "--out", str(out)]
    assert run(*arguments, "--note", "a quiet machine").exit_code == 0
    content = json.loads(out.read_text())
    origin = content["origin"]
    assert set(origin) == {"commit", "started", "machine", "versions", "note"}
    assert origin["note"] == "a quiet machine"
    assert {"python", "torch", "transformers", "fedperfit"} <= set(origin["versions"])
    assert origin["machine"]["cores"] > 0
    content["origin"]["commit"] = "0" * 40
    out.write_text(json.dumps(content))
    other = run(*arguments)
    assert "another commit" in str(other.exception)


def test_a_commit_is_told_with_its_changes_and_not_outside_a_checkout(tmp_path: Path) -> None:
    assert commit(tmp_path) == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "code.py").write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "First"]):
        subprocess.run([*git, *command], check=True)
    clean = commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "code.py").write_text("2")
    assert commit(tmp_path) == f"{clean}+changes"


def test_a_comparison_says_where_either_file_comes_from(tmp_path: Path) -> None:
    machine = {"processor": "a processor", "cores": 2}
    told = {"commit": f"{'0' * 40}+changes", "machine": machine, "versions": {"torch": "2"}, "note": "busy"}
    for name, origin in (("a", told), ("b", {"commit": 1})):
        record = Record(tmp_path / name, {}, lambda name, figures: None, origin)
        record.measure("training/a-task-with-a-long-name/l7+f7/engine/0", lambda: {"seconds_per_user": 1.0})
    printed = "".join(run("--compare", str(tmp_path / "a"), str(tmp_path / "b")).output.split())
    assert "a:commit000000000000+changes,aprocessor,2cores,torch2,busy" in printed
    assert "b:originnotrecorded" in printed
    assert "…" not in printed


def test_two_files_are_compared_figure_by_figure(tmp_path: Path) -> None:
    for name, seconds in (("a", 2.0), ("b", 1.0)):
        record = Record(tmp_path / name, {}, lambda name, figures: None, {})
        record.measure("training/engine", lambda seconds=seconds: {"seconds": seconds, "peak_bytes": None})
        record.measure(f"only/{name}", lambda: {"seconds": 1.0})
    result = run("--compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert result.exit_code == 0, result.output
    (row,) = [line for line in result.output.splitlines() if "training" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        *("training/engine", "seconds", "2", "1", "0.50x")
    ]
    assert "only" not in result.output
    assert "origin not recorded" in result.output
    Record(tmp_path / "c", {}, lambda name, figures: None, {}).put("training", [])
    assert "in common" in str(run("--compare", str(tmp_path / "a"), str(tmp_path / "c")).exception)
    assert run("--compare", str(tmp_path / "a"), str(tmp_path / "missing")).exit_code != 0


@pytest.mark.parametrize(
    "content", ["[1]", '{"format": 1}', '{"format": 1, "settings": {}, "measurements": {"a": 1}}']
)
def test_only_files_of_measurements_are_compared(tmp_path: Path, content: str) -> None:
    (tmp_path / "a").write_text(content)
    refused = run("--compare", str(tmp_path / "a"), str(tmp_path / "a"))
    assert "not a file of benchmark measurements" in str(refused.exception)
