"""Run folders whose files are broken: every command tells the file in one line."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.finished.test_timeline import timed_run
from tests.simulation.small_run import prepare, small_settings
from typer.testing import CliRunner

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.simulation.cli import app

FILES = {
    "report": (
        *("bounds.json", "limit.json", "rounds.json", "card.json", "places.json", "settings.json"),
        *("results/evaluate-base.json", "clients/0/scan.json"),
    ),
    "timeline": ("metrics.json",),
    "difference": ("settings.json", "bounds.json", "results/evaluate-base.json"),
}
WRONG = (0.5, ["SECRET"], "SECRET", {"other": 1}, None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = timed_run(tmp_path_factory.mktemp("run") / "timed", "LaMP_2M", 60.0)
    bounds = read_json(folder / "bounds.json")
    limits = {user: {"0": [one["gold"] for one in answers]} for user, answers in bounds.items()}
    write_json(folder / "limit.json", limits)
    write_json(
        folder / "places.json", {"settings": {}, "relevance": [1.0, 2.0], "clients": 2, "seconds": 1.0}
    )
    return folder


def invoked(command: str, folder: Path) -> Any:
    words = {
        "report": ["report", folder],
        "timeline": ["timeline", folder, "--out", folder / "times.svg"],
        "difference": ["difference", "--run", folder, "--other", folder],
    }
    return CliRunner().invoke(app, list(map(os.fspath, words[command])), env={"COLUMNS": "400"})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in list(inside)[:2]:
        yield from places(one, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value = value.copy()
    value[path[0]] = changed(value[path[0]], path[1:], new)
    return value


@pytest.mark.parametrize("command", list(FILES))
def test_a_whole_folder_is_read(run: Path, command: str):
    assert invoked(command, run).exit_code == 0


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command in FILES for name in FILES[command]]
)
def test_a_value_of_another_form_is_told_in_one_line(run: Path, tmp_path: Path, command: str, name: str):
    folder = shutil.copytree(run, tmp_path / "copy")
    whole = read_json(folder / name)
    inside = list(places(whole))[1:]
    for place in [(), *random.Random(0).sample(inside, min(1, len(inside)))]:
        for new in WRONG:
            (folder / name).write_text(json.dumps(changed(whole, place, new)))
            done = invoked(command, folder)
            if not place or done.exit_code:
                assert isinstance(done.exception, InputError), (place, new, done.output)
                assert str(done.exception).startswith(str(folder)), place
                assert "\n" not in str(done.exception)
                assert "SECRET" not in str(done.exception) or name == "settings.json"


@pytest.mark.parametrize(
    ("key", "told"), [("history-lengths", "settings lack 'history-lengths'"), ("seed", "")]
)
def test_a_missing_setting_is_told_or_at_its_default(run: Path, tmp_path: Path, key: str, told: str):
    folder = shutil.copytree(run, tmp_path / "copy")
    settings = read_json(folder / "settings.json")
    del settings[key]
    write_json(folder / "settings.json", settings)
    for command in ("report", "difference"):
        done = invoked(command, folder)
        assert str(done.exception or "") == (told and f"{folder / 'settings.json'}: {told}")


def test_a_result_of_another_task_is_told(run: Path, tmp_path: Path):
    folder = shutil.copytree(run, tmp_path / "copy")
    path = folder / "results" / "evaluate-base.json"
    write_json(path, {user: {"items": 1, "metrics": {"correct": 1.0}} for user in read_json(path)})
    assert "evaluate-base.json: no sums of LaMP_2M" in str(invoked("report", folder).exception)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settings.json", [1]),
        ("settings.json", {"seed": 0}),
        ("clients/roster.json", {"others-0": "SECRET"}),
    ],
)
def test_a_broken_run_is_not_resumed(tmp_path: Path, name: str, value: Any):
    prepare(tmp_path, small_settings())
    write_json(tmp_path / name, value)
    done = CliRunner().invoke(app, ["simulate", "--resume", "--run-dir", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith(str(tmp_path / name))
    assert "SECRET" not in str(done.exception)
