import dataclasses
import sys
from pathlib import Path

import pytest
from fake_grid import HEADER, SHAPE, FakeGrid, federation, flat, honest, perturbed
from flwr.app import Message, RecordDict

from cloud import cli
from protocol.errors import InputError
from protocol.packing import pack
from protocol.release import FILE_NAME, Release, read_release
from protocol.shift import Shift
from protocol.shift_file import write_shift_file

SHIFT = perturbed(Shift.identity(SHAPE, seed=0), "release")


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["fedperfit-cloud", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip(dtype: str, tmp_path: Path) -> None:
    header = dataclasses.replace(HEADER, dtype=dtype)
    release = Release.first(SHIFT, header)
    release.write(tmp_path / FILE_NAME)
    read = read_release(tmp_path / FILE_NAME)
    assert read.fields() == release.fields()
    assert read.digest == release.digest
    if dtype == "float32":
        assert flat(read.shift) == flat(SHIFT)
        read.write(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / FILE_NAME).read_bytes()


def test_releases_form_a_chain(tmp_path: Path) -> None:
    first = Release.first(SHIFT, HEADER)
    second = first.next(perturbed(SHIFT, "next"), HEADER)
    assert (second.version, second.previous) == (2, first.digest)
    with pytest.raises(InputError, match="one task"):
        first.next(SHIFT, dataclasses.replace(HEADER, task="LaMP_3"))


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_release(keep: int, tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    Release.first(SHIFT, HEADER).write(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="truncated"):
        read_release(path)


def test_a_release_that_contradicts_itself(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    release = Release.first(SHIFT, HEADER)
    fields = {**release.fields(), "fingerprint": "0" * 64}
    write_shift_file(path, "release", pack(SHIFT, HEADER), fields)
    with pytest.raises(InputError, match="fingerprint contradicts"):
        read_release(path)
    write_shift_file(path, "release", pack(SHIFT, HEADER), {**release.fields(), "version": 0})
    with pytest.raises(InputError, match="no valid version"):
        read_release(path)


def test_show_a_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release = Release.first(SHIFT, HEADER)
    release.write(tmp_path / FILE_NAME)
    assert command(monkeypatch, "release", "show", tmp_path / FILE_NAME) == 0
    shown = capsys.readouterr().out
    for text in (release.sha256, release.digest, "LaMP_2M", "l7", "1, 2"):
        assert text in shown


def test_show_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(client: str, message: Message) -> list[Message]:
        return [Message(RecordDict(), reply_to=message)] if client == "b[en]" else honest(client, message)

    grid = FakeGrid({1: "anna", 2: "b[en]"}, answer)
    federation(tmp_path, grid).train(["anna", "b[en]"], lambda report: None)
    assert command(monkeypatch, "checkpoint", "show", tmp_path / "checkpoints") == 0
    shown = capsys.readouterr().out
    assert "LaMP_2M, 2 rounds" in shown
    assert "round 1: dropped b[en]: the record" in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["release", "show", "missing"], "missing: no such file"),
        (["release", "show", "."], "error: "),
        (["checkpoint", "show", "missing"], "missing: no such folder"),
        (["checkpoint", "show", "."], ".: no checkpoint"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert reason in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["release"], ["release", "show"], ["checkpoint", "show"]])
def test_help_teaches(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *arguments, "--help") == 0
    assert "Usage: fedperfit-cloud" in capsys.readouterr().out
