"""Every example runs, and shows what it promises."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sit in an empty folder, with the examples' own folder on the path as when a script of it is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))


def run(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run a script as the main program; its printed lines."""
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_every_script_has_a_test() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")} - {"people.py"}
    assert scripts == {"personal_shift.py", "federation.py", "own_method.py", "release.py"}


def test_a_personal_shift_answers_as_the_person_does(capsys: pytest.CaptureFixture[str]) -> None:
    _, *scores = run("personal_shift.py", capsys)
    alone, own = (int(line.split(": ")[1].split(" of ")[0]) for line in scores)
    assert alone <= 5
    assert own >= 8


def test_a_federation_reports_its_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    *rounds, last = run("federation.py", capsys)
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in rounds]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    assert all("4 of 4 clients, 96 items" in line for line in rounds)
    assert "trained on LaMP_2M" in last


def test_a_release_is_verified_and_a_changed_one_refused(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = run("release.py", capsys)
    assert first.startswith("release 1 of LaMP_2M")
    assert second.startswith("changed by one bit: ")


def test_a_method_of_ones_own_is_a_row_of_the_table() -> None:
    command = [sys.executable, str(EXAMPLES / "own_method.py"), "--run-dir", "run", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "most frequent of the latest answers" in done.stdout


def test_the_notebook_runs_from_its_first_cell_to_its_last() -> None:
    notebook = json.loads((EXAMPLES / "personal_model.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    names: dict[str, dict[str, int]] = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert names["right"]["base"] <= 5
    assert names["right"]["personal"] >= 8
