"""The real thing: SuperLink, Ray and ClientApps in their own processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.simulation.small_run import SMALL

from fedperfit.cloud.job.events import EVENTS
from fedperfit.protocol.system.errors import InputError, RunFailed, TooFewClients
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation.cli import main
from fedperfit.simulation.run import job, runner
from fedperfit.simulation.run.environment import RUN_MARK, variables
from fedperfit.simulation.run.runner import stop_run

SETTINGS = SMALL | {"rounds": 3, "history-lengths": [], "collective-sizes": []}


def command(folder: Path, *extra: str) -> list[str]:
    return [sys.executable, "-m", "fedperfit.simulation.cli", "simulate", "--run-dir", str(folder), *extra]


def fresh(folder: Path) -> list[str]:
    values = [f"{key}={json.dumps(value)}" for key, value in SETTINGS.items()]
    return command(folder, *(part for value in values for part in ("--set", value)))


def processes_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_MARK) == str(folder.resolve()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def events(folder: Path) -> list[dict[str, object]]:
    path = folder / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


@pytest.fixture
def runs(tmp_path):
    yield tmp_path
    for folder in tmp_path.iterdir():
        stop_run(folder)


def test_clients_take_turns_with_other_programs_and_do_not_wait_for_them(tmp_path):
    assert variables(tmp_path, "a run", 0.0)["RAY_worker_niceness"] == "0"


def test_kill_in_round_two_then_resume_equals_an_uninterrupted_run(runs):
    whole, killed = runs / "whole", runs / "killed"
    done = subprocess.run(fresh(whole), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "report:" in done.stdout
    assert (whole / "report.html").stat().st_size > 10_000
    assert not processes_of(whole), "every process of the run is gone"

    process = subprocess.Popen(fresh(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 240
        while not any(event["event"] == "round" for event in events(killed)):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        for one in [process.pid, *(p.pid for p in processes_of(killed))]:
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                continue
    finally:
        process.kill()
        process.wait()
    assert not (killed / "release.safetensors").exists(), "it was killed before the last round"
    resumed = subprocess.run(
        command(killed, "--resume"), capture_output=True, text=True, timeout=300, check=False
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    first, second = (read_release(run / "release.safetensors") for run in (killed, whole))
    assert first.packed == second.packed
    for phase in ("evaluate-collective", "evaluate-personal", "personalize"):
        paths = [folder / "results" / f"{phase}.json" for folder in (whole, killed)]
        assert read_json(paths[0]) == read_json(paths[1])


def test_a_stopped_run_leaves_no_process_and_says_how_to_go_on(runs):
    folder = runs / "stopped"
    process = subprocess.Popen(fresh(folder), stdout=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 240
        while not any(event["event"] == "connected" for event in events(folder)):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"--resume --run-dir {folder}" in output
    assert not processes_of(folder)


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """Run `fedperfit simulate` with arguments it refuses; return its one line on stderr."""

    def run(*arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(sys, "argv", ["fedperfit", "simulate", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "no-such-folder"], "no-such-folder"),
        (["--task", "LaMP_9"], "unknown task 'LaMP_9'"),
        (["--set", "personal-rank=0"], "rank=0"),
        (["--set", "collective-rank=193"], "rank=193"),
        (["--set", "personal-rank=193"], "rank=193"),
        (["--set", "layers=[8]"], "layers=[8]"),
        (["--set", "positions=x7"], "positions='x7'"),
        (["--set", "nonsense=1"], "unknown setting 'nonsense'"),
        (["--set", "rounds=many"], "rounds='many'"),
        (["--preset", "nonsense"], "unknown preset"),
        (["--base-model", "./nowhere"], "no such folder"),
        (["--resume"], "--run-dir"),
        (["--run-dir", "."], "not empty"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_two(tmp_path, told, arguments, message):
    (tmp_path / "mine.txt").write_text("a file of the user's")
    line = told(*arguments)
    assert line.startswith("error: ")
    assert message in line


def test_the_command_itself_ends_with_that_code(tmp_path):
    command = [sys.executable, "-m", "fedperfit.simulation.cli", "simulate", "--data", "no-such-folder"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def oppu_folder(folder: Path) -> Path:
    """A tiny OPPU-layout LaMP_3 folder."""
    item = {"id": "1", "text": "The lid is good.", "score": "4"}
    query = {"id": "q", "input": "What is the score ... review: The lid is weak."}
    user = {"user_id": "u", "profile": [item], "query": [query]}
    folder.mkdir()
    (folder / "user_others.json").write_text(json.dumps([user | {"query": [query | {"gold": "3"}]}]))
    (folder / "user_top_100_history.json").write_text(json.dumps([user]))
    golds = {"task": "LaMP_3", "golds": [{"id": "q", "output": "3"}]}
    (folder / "user_top_100_history_label.json").write_text(json.dumps(golds))
    return folder


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "user_top_100_history.json",
            '"profile": [{',
            '"profile": [] , "x": [{',
            "usable history",
        ),
        ("user_others.json", '"profile"', '"profile', "user_others.json"),
        ("user_others.json", None, None, "user_others.json"),
    ],
)
def test_bad_data_is_one_line_and_exit_code_two(tmp_path, told, file, old, new, message):
    data = oppu_folder(tmp_path / "data")
    path = data / file
    if old is None:
        path.unlink()
    else:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
    assert message in told("--task", "LaMP_3", "--data", str(data))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TooFewClients("evaluate-base: no client answered"), TooFewClients),
        (InputError("prior.scatter: no such file"), RunFailed),
    ],
)
def test_what_ended_it_in_flowers_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: InputError, kind: type[RunFailed]
):
    class Ended:
        def __init__(self, *given: object) -> None:
            pass

        def run(self) -> None:
            raise error

    def stream_run(*given: object, events: Path, on_event: runner.OnEvent, log: Path) -> None:
        with pytest.raises(InputError):
            job.do_job(None, None, tmp_path, lambda event: None)  # type: ignore[arg-type]
        for line in events.read_text().splitlines():
            on_event(json.loads(line))
        raise RunFailed(f"the run ended as 'finished:failed'; see {log}")

    monkeypatch.setattr(job, "Study", Ended)
    monkeypatch.setattr(runner, "stream_run", stream_run)
    heard: list[str] = []
    with pytest.raises(RunFailed) as told:
        runner._stream(tmp_path, {}, lambda event: heard.append(event["event"]))
    assert type(told.value) is kind
    assert str(told.value) == f"{error}; see {tmp_path / 'flower.log'}"
    assert heard == ["start", "failed"]
    assert (tmp_path / EVENTS).read_text().count("failed") == 1
