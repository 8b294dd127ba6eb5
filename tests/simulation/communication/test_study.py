"""A study in its folder: begun, killed, resumed, extended, concluded."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.communication.small_study import TASK, empty, small_settings
from tests.simulation.data.lamp_folders import item, oppu, write
from typer.testing import CliRunner

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json
from fedperfit.simulation.cli import app
from fedperfit.simulation.communication.page import REPORT, finding
from fedperfit.simulation.communication.result import RESULTS
from fedperfit.simulation.communication.row import rows_by_name
from fedperfit.simulation.communication.settings import CommunicationSettings
from fedperfit.simulation.communication.study import begin, extend, run_study, stored_settings
from fedperfit.simulation.report.bootstrap import FEWEST


def ignored(event: dict[str, Any]) -> None:
    """Take an event and do nothing."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("study") / "whole"
    begin(folder, small_settings())
    return folder, run_study(folder, ignored)


def timeless(results: dict[str, Any]) -> dict[str, Any]:
    """Results without what depends on the clock."""
    kept = copy.deepcopy(results)
    for row in kept["tasks"][TASK]["rows"].values():
        del row["seconds"]
    return kept


def test_every_row_has_score_difference_and_bytes(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, results = finished
    rows = results["tasks"][TASK]["rows"]
    assert list(rows) == ["base", "perfit", "lora"]
    assert rows["base"]["traffic"]["updates"] == 0
    for name in ("base", "lora"):
        assert {"value", "low", "high", "significant"} <= set(rows[name]["difference"]["accuracy"])
    for name in ("perfit", "lora"):
        sent, search = rows[name]["traffic"], rows[name]["search"]
        assert sent["updates"] == 2 * 2
        assert sent["up"]["payload"] == 4 * sent["update"]["payload"]
        assert sent["update"]["message"] > sent["update"]["payload"]
        assert len(search["tried"]) == 2
        assert search["tried"][0]["shared"] == rows["lora"]["search"]["tried"][0]["shared"]
    assert "not measured" in results["socket-bytes"]
    assert read_json(folder / RESULTS) == results
    assert "LoRA r=8, FedAvg" in (folder / REPORT).read_text()


def test_a_killed_study_ends_with_the_same_results(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    def kill(event: dict[str, Any]) -> None:
        if event.get("done") == 5:  # one of the last row's draws is on file
            raise KeyboardInterrupt

    folder = tmp_path / "killed"
    begin(folder, small_settings())
    with pytest.raises(KeyboardInterrupt):
        run_study(folder, kill)
    empty(folder / "work" / "half")  # what a kill in the middle of a unit leaves
    told: list[dict[str, Any]] = []
    results = run_study(folder, told.append)
    assert [event["event"] for event in told] == ["start", "work", "work", "figures", "done"]
    assert "LaMP_2M lora/traffic/update/payload" in told[-2]["figures"]
    assert timeless(results) == timeless(finished[1])
    assert not (folder / "work").exists()


def test_a_study_is_extended_by_rows_and_seeds(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    begin(folder, small_settings(rows=["base"]))
    extend(folder, ["lora", "base"], [1])
    assert (stored_settings(folder).rows, stored_settings(folder).seeds) == (["base", "lora"], [0, 1])
    with pytest.raises(InputError, match="unknown row 'morse'"):
        extend(folder, ["morse"], [])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"rows": ["morse"]}, "unknown row 'morse': expected some of base, perfit"),
        ({"data": "mine", "rows": ["sign"]}, "sign need public-items"),
        ({"data": "mine", "public_items": "none.json"}, "public-items=none.json: no such file"),
        ({"others": 1}, "1 other users are too few"),
        ({"preset": "fast"}, "fast"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_line(changes: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=fault) as refused:
        begin(tmp_path / "study", small_settings(**changes))
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "study" / "settings.json").exists()


def test_what_was_refused_is_begun_again_in_the_same_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few to validate"):
        begin(tmp_path, small_settings(rows=["base"], others=2, validation_users=8))
    assert [path.name for path in tmp_path.iterdir()] == ["world"]
    settings = small_settings(rows=["base"])
    begin(tmp_path, settings)
    assert len(read_json(tmp_path / "world" / "LaMP_2M" / "user_others.json")) == settings.others != 2


def test_a_range_of_rates_has_two_ends() -> None:
    with pytest.raises(InputError, match="lowest-rate=1 exceeds highest-rate"):
        CommunicationSettings(lowest_rate=1.0)
    with pytest.raises(InputError, match="rows=lora,lora: each once"):
        CommunicationSettings(rows=["lora", "lora"])


def test_the_command_lists_runs_and_resumes(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert set(rows_by_name()) <= set(run(app, ["communication", "--list-rows"]).output.split())
    folder = tmp_path / "study"
    begin(folder, small_settings(rows=["base"]))
    done = run(app, ["communication", "--resume", "--run-dir", str(folder)])
    assert done.exit_code == 0, done.output
    assert "base" in done.output
    fresh = run(app, ["communication", "--run-dir", str(folder)])
    assert "is not empty" in str(fresh.exception)
    other = run(app, ["communication", "--resume", "--run-dir", str(folder), "--draws", "9"])
    assert "leave all but --rows and --seeds out" in str(other.exception)
    assert "needs --run-dir" in str(run(app, ["communication", "--resume"]).exception)


def test_a_finding_tells_better_from_worse(finished: tuple[Path, dict[str, Any]]) -> None:
    about = copy.deepcopy(finished[1]["tasks"][TASK])
    assert finding(about) == "Too few to tell rows apart: 2 people."
    about["users"] = FEWEST
    about["rows"]["lora"]["difference"]["accuracy"] |= {"value": 0.1, "significant": True}
    about["rows"]["base"]["difference"]["accuracy"] |= {"value": -0.1, "significant": True}
    assert finding(about) == (
        "Against whole shifts in fp32, better beyond chance: LoRA r=8, FedAvg. Worse beyond chance: base "
        "model alone. Within chance: 0 of 2."
    )
    assert "better beyond chance: base model" in finding(about | {"lower-is-better": True})


def test_lamp_files_make_public_bases_of_public_items(tmp_path: Path) -> None:
    write(tmp_path / "data", oppu())
    items = [item(number) for number in range(40)]
    (tmp_path / "public.json").write_text(json.dumps(items))
    files = {"tasks": ["LaMP_3"], "data": str(tmp_path / "data")}
    public = {"public_items": str(tmp_path / "public.json"), "rows": ["sign"], "draws": 1}
    folder = tmp_path / "study"
    begin(folder, small_settings(**files, **public, others=3, users=4))
    about = run_study(folder, ignored)["tasks"]["LaMP_3"]
    assert about["users"] == 4
    one_layer = 8 * 16 + 8  # where a model of four layers has the two that the preset shifts
    assert about["rows"]["sign"]["traffic"]["update"]["payload"] == 4 + 2 + one_layer // 8
    assert "bounds" not in about
