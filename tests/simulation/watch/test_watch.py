"""The live page of a run folder: at work, done, failed, killed, and asked by whom it should not be."""

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from fedperfit.cloud.job.events import EVENTS, recorder
from fedperfit.protocol.system.files import write_json
from fedperfit.simulation.cli import app
from fedperfit.simulation.watch.server import build

HOSTILE = "<script>alert(1)</script>"


def round_of(number: int, **changes: Any) -> dict[str, Any]:
    values = {"phase": "train", "round": number, "rounds": 2, "admitted": 3, "dropped": 1}
    return values | {"kinds": {}, "loss": 1.0 / number, "down": 2_000, "up": 1_000} | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "small run"
    folder.mkdir()
    write_json(folder / "settings.json", {"rounds": 2, "layers": [1, 2], "note": HOSTILE})
    return folder


def client(folder: Path, host: str = "127.0.0.1:8200") -> TestClient:
    return TestClient(build(folder), base_url=f"http://{host}")


def shown(asking: TestClient) -> str:
    answer = asking.get("/")
    assert answer.status_code == 200
    HTMLParser().feed(answer.text)
    return answer.text.replace("\n", "")


def test_a_run_is_shown_as_it_goes_on(folder: Path) -> None:
    asking = client(folder)
    assert "Nothing has happened yet" in shown(asking)
    record = recorder(folder, lambda event: None)
    record("start", {"run": str(folder)})
    record("phase", {"phase": "train", "clients": 5})
    record("reply", {"phase": "train", "replies": 4, "clients": 5})
    html = shown(asking)
    assert "At work: train" in html
    assert "<td>train</td><td>5</td><td>4</td>" in html
    assert 'http-equiv="refresh"' in html
    record("round", round_of(1))
    with (folder / EVENTS).open("a") as file:
        file.write('{"event": "round", "ti')  # in the middle of a line
    html = shown(asking)
    assert "<td>train 1 of 2</td><td>3</td><td>1</td><td>1.0000</td><td>2,000</td><td>1,000</td>" in html
    assert "train 2 of 2" not in html
    assert html.count("<svg") == 1
    text = (folder / EVENTS).read_text()
    (folder / EVENTS).write_text(text[: text.rindex("\n") + 1])
    record("round", round_of(2, loss=2 / 3))
    assert " · loss 0.666667 · " in shown(asking)
    record("round", round_of(2, loss=None))
    record(
        "figures", {"figures": {f"stages/personal/metrics/f1/{end}": 0.5 for end in ("value", "low", "high")}}
    )
    assert client(folder).get("/report").status_code == 404
    (folder / "report.html").write_text("<p>the report")
    record("done", {"report": str(folder / "report.html")})
    html = shown(asking)
    assert "<h1>Done</h1>" in html
    assert "http-equiv" not in html
    assert '<td>stages/<wbr>personal/<wbr>f1</td><td>0.500</td><td class="note">[0.500, 0.500]</td>' in html
    assert asking.get("/report").text == "<p>the report"


def test_a_failed_run_and_hostile_words(folder: Path) -> None:
    record = recorder(folder, lambda event: None)
    record("start", {"run": str(folder)})
    record("failed", {"reason": HOSTILE, "too-few-clients": True})
    html = shown(client(folder))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 3, "in headline, events and settings"


def test_a_killed_run_is_known_by_its_silence(folder: Path) -> None:
    lines = [{"event": "start", "time": time.time() - 500, "run": ""}]
    (folder / EVENTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "No event for 8 min: is it still running?" in shown(client(folder))


def test_studies_are_shown_too(folder: Path) -> None:
    record = recorder(folder, lambda event: None)
    record("start", {"run": str(folder), "total": 4})
    record("work", {"done": 1, "total": 4, "last": "oppu main", "left": 300.0})
    trial = {"learning-rate": 1e-3, "epochs": 4, "without": 0.2}
    record("trial", {"done": 1, "total": 2, "score": 0.5, **trial})
    html = shown(client(folder))
    assert '<progress value="1" max="4"></progress> 1 of 4 about 5 min left' in html
    assert "<td>0.001</td><td>4</td><td>0.500</td><td>0.200</td>" in html


def test_nobody_else_asks_and_nothing_is_asked_elsewhere(folder: Path) -> None:
    before = sorted(folder.iterdir())
    answer = client(folder).get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert not re.search(r"https?://(?!www.w3.org)", answer.text)
    assert client(folder, "evil.example").get("/").status_code == 400
    assert client(folder).post("/").status_code == 405
    assert client(folder).get("/settings.json").status_code == 404
    assert sorted(folder.iterdir()) == before


def test_the_command_refuses_in_one_line_and_ends_in_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = CliRunner().invoke(app, ["watch", str(folder / "nothing")])
    assert "no such folder" in str(told.exception)

    def interrupted(*_: Any, **options: Any) -> None:
        assert options["host"] == "127.0.0.1"
        raise KeyboardInterrupt

    monkeypatch.setattr("uvicorn.run", interrupted)
    monkeypatch.setattr("fedperfit.protocol.system.flower.free", lambda port: True)
    told = CliRunner().invoke(app, ["watch", str(folder)])
    assert told.exit_code == 0
    assert told.output.splitlines()[-1] == "no longer watched"
    assert "http://127.0.0.1:8200/" in told.output


@pytest.mark.parametrize(
    "line",
    [
        "[1]",
        '{"event"',
        '{"event": "phase", "time": 1.0}',
        json.dumps(round_of(1, event="round", loss="SECRET")),
    ],
)
def test_a_line_that_is_no_event_is_told_by_its_number(folder: Path, line: str) -> None:
    recorder(folder, lambda event: None)("start", {"run": str(folder)})
    asking = client(folder)
    assert "At work" in shown(asking)
    with (folder / EVENTS).open("a") as file:
        file.write(f"{line}\n")
    for _ in range(2):
        answer = asking.get("/")
        assert answer.status_code == 500
        assert answer.text.startswith(f"error: {folder / EVENTS}, line 2: ")
        assert "SECRET" not in answer.text
    told = CliRunner().invoke(app, ["watch", str(folder)])
    assert f"{EVENTS}, line 2: " in str(told.exception)
    (folder / EVENTS).unlink()
    write_json(folder / "settings.json", [1])
    assert "settings.json: input should be a valid dictionary" in asking.get("/").text


def test_a_folder_that_is_moved_away_is_told_and_looked_for_again(folder: Path) -> None:
    asking = client(folder)
    assert "Nothing has happened yet" in shown(asking)
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    told = asking.get("/")
    assert (told.status_code, told.text) == (500, f"error: {folder}: the folder is no longer there\n")
    assert int(told.headers["refresh"]) > 0
    elsewhere.rename(folder)
    assert "Nothing has happened yet" in shown(asking)


def test_another_run_in_the_folder_is_read_from_its_beginning_however_far_it_has_come(folder: Path) -> None:
    asking = client(folder)
    record = recorder(folder, lambda event: None)
    record("start", {"run": str(folder)})
    record("failed", {"reason": "the first run"})
    assert "the first run" in shown(asking)
    (folder / EVENTS).unlink()
    record("start", {"run": str(folder)})
    for name in ("train", "evaluate", "evaluate-again"):
        record("phase", {"phase": name, "clients": 5})
    html = shown(asking)
    assert "At work: evaluate-again" in html
    assert "the first run" not in html


def test_half_a_character_in_the_name_of_a_file_is_shown_as_a_mark(folder: Path) -> None:
    record = recorder(folder, lambda event: None)
    record("start", {"run": str(folder)})
    record("failed", {"reason": "caf\udce9.toml: no such file"})  # a name in Latin-1, as Python reads it
    assert "Failed: caf?.toml: no such file" in shown(client(folder))


def test_what_the_system_refuses_is_told_in_a_line(folder: Path) -> None:
    for name in (EVENTS, "report.html"):
        (folder / name).mkdir()
    for place, name in (("/", EVENTS), ("/report", "report.html")):
        answer = client(folder).get(place)
        assert (answer.status_code, answer.text) == (500, f"error: {folder / name}: Is a directory\n")
