"""`fedperfit compare` as its user runs it: progress, a kill, resuming, and what is wrong told in one line."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.simulation.compare.small_comparison import small_settings, started, tiny_base

from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.system.files import read_json, read_json_lines
from fedperfit.simulation.compare.cells import MAIN, SEARCH, WorkUnit
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.compare.study import Progress, begin, run_comparison
from fedperfit.simulation.data.participants import participants
from fedperfit.simulation.world.settings import ParticipantCounts

FAST = (
    *("--methods", "base,majority-user,perfit-stage1", "--users", "2", "--others", "7", "--draws", "2"),
    *("--seeds", "0,1", "--history-lengths", "0", "--collective-sizes", "none", "--curve-users", "1"),
)


def compare(*arguments: str) -> subprocess.Popen[str]:
    base = [] if "--resume" in arguments else ["--base-model", tiny_base()]
    return subprocess.Popen(
        [sys.executable, "-m", "fedperfit.simulation.cli", "compare", *base, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lines(folder: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in folder.glob("*/**/*.jsonl"))


def waited(folder: Path, count: int) -> None:
    end = time.monotonic() + 200
    while lines(folder) < count and time.monotonic() < end:
        time.sleep(0.05)


def test_an_interrupt_a_kill_and_resuming_end_as_if_nothing_had_been(tmp_path):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    process = compare(*FAST, "--run-dir", str(folder), "--workers", "1")
    try:
        waited(folder, 2)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert f"--resume --run-dir {folder}" in said
    assert "Traceback" not in said

    reached = lines(folder)
    killed = compare("--resume", "--run-dir", str(folder), "--workers", "2")
    try:
        waited(folder, reached + 3)
        family = psutil.Process(killed.pid).children(recursive=True)
        assert len(family) >= 2
    finally:
        killed.kill()
        killed.communicate()

    settings = CompareSettings.from_file(folder / "settings.json")
    begin(whole, settings)
    run_comparison(whole, 1, lambda event: None)
    assert reached + 3 <= lines(folder) < lines(whole)
    resumed = compare("--resume", "--run-dir", str(folder))
    said, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, said
    assert "report.html" in said
    first, second = (read_json(one / "metrics.json")["tasks"]["LaMP_2M"] for one in (whole, folder))
    for a, b in zip(first["rows"], second["rows"], strict=True):
        assert a["metrics"] == b["metrics"]
    predictions = sorted((whole / "predictions" / "LaMP_2M").iterdir())
    assert len(predictions) == 1 + 3 * 2
    for file in predictions:
        assert file.read_bytes() == (folder / "predictions" / "LaMP_2M" / file.name).read_bytes()
    _, alive = psutil.wait_procs(family, timeout=150)  # Ray's agents look for the head for a minute
    assert alive == [], "workers end when the process they work for is gone"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--tasks", "LaMP_9"], "unknown task"),
        (["--tasks", "LaMP_2N"], "the world has no task"),
        (["--methods", "base,nothing"], "unknown method 'nothing'"),
        (["--seeds", "a"], "seeds=['a']: expected a list of at least one, each a whole"),
        (["--seeds", "1,1"], "each once"),
        (["--users", "0"], "users=0"),
        (["--others", "1"], "too few to validate"),
        (["--validation-users", "40"], "too few to validate"),
        (["--data", "nowhere"], "nowhere"),
        (
            ["--history-lengths", "-1"],
            "history-lengths=[-1]: expected a list",
        ),
        (["--resume"], "--resume needs --run-dir"),
        (["--prompt-form", "other"], "expected one of lamp, oppu"),
        (["--tasks", "LaMP_4", "--methods", "majority-user"], "none of the methods"),
        (["--method-file", "nowhere.py"], "nowhere.py"),
        (["--base-model", "./nowhere"], "no such folder"),
        (["--encoder", "./nowhere"], "no sentence encoder"),
        (["--values-of", "nowhere"], "holds no comparison"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, arguments, reason, monkeypatch, capsys):
    from fedperfit.simulation.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedperfit", "compare", "--draws", "1", "--workers", "1", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip()
    assert reason in error
    assert "\n" not in error


def test_a_folder_with_something_else_is_left_alone(tmp_path, monkeypatch, capsys):
    from fedperfit.simulation.cli import main

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "diary.txt").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["fedperfit", "compare", "--run-dir", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["diary.txt"]


_DEADLY = """
import os
from fedperfit.simulation.compare.method import Method

class Deadly(Method):
    name = "deadly"
    title = "ends its process"

    def fit(self, history):
        {act}

    def answer(self, fitted, questions):
        return list(questions)
"""


@pytest.mark.parametrize("deadly", [True, False])
def test_a_worker_that_dies_is_told_and_others_are_ended(tmp_path, deadly):
    """What a method raises is none: it costs the method's row."""
    file = tmp_path / "deadly.py"
    file.write_text(_DEADLY.format(act="os._exit(7)" if deadly else "raise ValueError('two\\nlines')"))
    state = started(tmp_path / "run", methods=["base", "deadly"], method_files=[str(file)])
    if deadly:
        with pytest.raises(RunFailed, match="deadly main seed 0: 3 processes died over it") as caught:
            run_comparison(state.folder, 2, lambda event: None)
        assert "\n" not in str(caught.value)
    else:
        (line,) = run_comparison(state.folder, 2, lambda event: None)["failed"]
        assert "ValueError: two lines" in line
    family = psutil.Process().children(recursive=True)
    assert not [child for child in family if "ray" in child.name() and child.status() != psutil.STATUS_ZOMBIE]


def test_two_at_once_are_refused(tmp_path):
    from filelock import FileLock

    state = started(tmp_path / "run", methods=["base"])
    with (
        FileLock(state.folder / ".lock"),
        pytest.raises(InputError, match="another process is running this comparison"),
    ):
        run_comparison(state.folder, 1, lambda event: None)


def test_as_many_workers_as_have_room(monkeypatch):
    from types import SimpleNamespace

    from fedperfit.simulation.compare import workers

    settings = small_settings(device="auto")
    monkeypatch.setattr(workers, "cores", lambda: 16)
    monkeypatch.setattr(workers.torch.cuda, "is_available", lambda: False)
    for parameters, expected in ((4_000_000, 16), (500_000_000, 3), (7_000_000_000, 1)):
        monkeypatch.setattr(workers, "read_card", lambda name, n=parameters: SimpleNamespace(parameters=n))
        memory = SimpleNamespace(total=24 * 2**30)
        monkeypatch.setattr(workers.psutil, "virtual_memory", lambda memory=memory: memory)
        assert workers.default_workers(settings) == expected
    monkeypatch.setattr(workers.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(workers, "read_card", lambda name: SimpleNamespace(parameters=1))
    assert workers.default_workers(settings) == 1


def test_time_left_follows_each_methods_own_pace():
    slow, fast = WorkUnit("LaMP_2M", "oppu", MAIN, 0), WorkUnit("LaMP_2M", "base", MAIN, 0)
    search, again = WorkUnit("LaMP_2M", "oppu", SEARCH, 0), WorkUnit("LaMP_2M", "oppu", MAIN, 1)
    progress = Progress({search: 3, slow: 4, fast: 2, again: 4}, 2)
    lines = [(search, 40.0), (search, 60.0), (search, 50.0)]  # each draw learns from the others anew
    lines += [(slow, 30.0), (slow, 2.0), (slow, 4.0), (fast, 0.5), (fast, 0.5)]  # so does a unit's first cell
    told = [progress.line(unit, seconds) for unit, seconds in lines]
    assert [(one["left"], one["least"]) for one in told] == [
        *((40.0, True), (25.0, True), (None, True)),
        *((15.0, True), (20.0, True), (21.0, True), (21.0, True), (21.0, False)),
    ]
    assert (told[-1]["done"], told[-1]["total"], told[-1]["last"]) == (8, 13, str(fast))


def test_real_data_may_be_a_folder_per_task(tmp_path):
    from tests.simulation.data.lamp_folders import oppu, write

    from fedperfit.protocol.tasks import TASKS

    write(tmp_path / "data" / "LaMP_3", oppu())
    size = ParticipantCounts(others=9, targets=9, world_history=1, world_questions=1)
    for data in (tmp_path / "data", tmp_path / "data" / "LaMP_3"):
        people = participants(TASKS["LaMP_3"], str(data), size, tmp_path)
        assert (len(people.others), len(people.targets)) == (3, 4)
        assert people.bounds == {}


def test_settings_go_to_a_file_and_back(tmp_path):
    state = started(tmp_path / "run", methods=["base"])
    assert CompareSettings.from_file(state.folder / "settings.json") == state.settings
    with pytest.raises(InputError, match="unknown setting 'surprise'"):
        CompareSettings.from_flat({"surprise": 1})


def test_each_cell_says_what_it_cost(tmp_path):
    state = started(tmp_path / "run", methods=["perfit-stage2-p"], users=1)
    run_comparison(state.folder, 1, lambda event: None)
    (line,) = read_json_lines(state.folder / WorkUnit("LaMP_2M", "perfit-stage2-p", MAIN, 0).file)
    assert line["fit-seconds"] > 0
    assert line["answer-seconds"] > 0
    assert line["parameters"] > 0
    assert line["bytes-down"] == line["bytes-up"] == 0
    assert line["peak-bytes"] is None or line["peak-bytes"] > 0
    assert line["items"] == 4


def test_what_was_refused_is_begun_again_with_a_world_of_its_own_size(tmp_path: Path) -> None:
    for others in (2, 1):
        with pytest.raises(InputError, match="too few to validate"):
            begin(tmp_path, small_settings(others=others, validation_users=8))
    begin(tmp_path, small_settings(others=5))
    assert len(read_json(tmp_path / "world" / "LaMP_2M" / "user_others.json")) == 5
