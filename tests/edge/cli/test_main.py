import json
import sys

import pytest
from tests.edge.edge_clients import write_client

from fedperfit.edge.cli import main as cli
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.signing import SigningKey


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["fedperfit-edge", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


@pytest.fixture
def release(tmp_path, shape, header: ShiftHeader):
    path = tmp_path / "release.safetensors"
    path.write_bytes(Release.first(Shift.identity(shape, seed=1), header, SigningKey()).to_bytes())
    return path


def test_show_personalize_answer(tmp_path, monkeypatch, capsys, release):
    folder = write_client(tmp_path / "client")
    assert run(monkeypatch, "show", folder) == 0
    assert "16 items" in capsys.readouterr().out
    question = "Which tag does this movie relate to? description: There are pranks and banter in May."
    assert run(monkeypatch, "answer", folder, question, "--release", release) == 2
    assert "personalize first" in capsys.readouterr().err
    assert run(monkeypatch, "personalize", folder, "--release", release, "--epochs", 1) == 0
    assert "fitted on 16 items" in capsys.readouterr().out
    assert run(monkeypatch, "answer", folder, question, "--release", release) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["base", "collective", "personal"]


def test_names_and_folders_are_no_markup_and_stay_on_their_line(tmp_path, monkeypatch, capsys, release):
    folder = write_client(tmp_path / "a[/x]\nb")
    about = json.loads((folder / "client.json").read_text())
    (folder / "client.json").write_text(json.dumps({**about, "name": "ada[/x]\x1b"}))
    assert run(monkeypatch, "show", folder) == 0
    assert capsys.readouterr().out.startswith("ada[/x]?: LaMP_2M, 16 items\n")
    assert run(monkeypatch, "personalize", folder, "--release", release, "--epochs", 1) == 0
    assert capsys.readouterr().out.endswith("a[/x]?b\n")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "client.json").unlink(), "no such file"),
        (lambda folder: (folder / "history.jsonl").write_text("{\n"), "line 1: broken JSON"),
        (lambda folder: (folder / "history.jsonl").write_text(""), "no history"),
    ],
)
def test_a_broken_folder_is_one_line_and_exit_code_two(
    tmp_path, monkeypatch, capsys, release, break_it, message
):
    folder = write_client(tmp_path / "client")
    break_it(folder)
    assert run(monkeypatch, "personalize", folder, "--release", release) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not (folder / "vault").exists()
