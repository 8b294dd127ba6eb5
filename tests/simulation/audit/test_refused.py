"""A study that is refused leaves nothing begun: the corrected command can be typed with the same folder."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedperfit.cloud.job.events import EVENTS, recorder
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json
from fedperfit.simulation.cli import app
from fedperfit.simulation.study_folder import LOCK, check_new, taken_back_if_refused

FEW = ["--set", "world-history=8", "--set", "others=2"]


def begun(folder: Path, *events: str) -> Path:
    write_json(folder / SETTINGS, {})
    (folder / LOCK).touch()
    record = recorder(folder, lambda event: None)
    for event in ("start", *events):
        record(event, {})
    return folder


def refused(folder: Path, *, new: bool) -> None:
    with pytest.raises(InputError, match="so it is"), taken_back_if_refused(folder, new=new):
        raise InputError("so it is")


@pytest.mark.parametrize("beside", ["", "world"])
def test_what_is_refused_before_any_work_is_taken_back(tmp_path: Path, beside: str) -> None:
    folder = begun(tmp_path / "study")
    if beside:
        (folder / beside).mkdir()
    refused(folder, new=True)
    assert folder.exists() is bool(beside)
    check_new(folder, beside=beside)


@pytest.mark.parametrize(("events", "new"), [(["work"], True), (["trial"], True), ([], False)])
def test_work_that_was_done_and_what_is_gone_on_with_stay(
    tmp_path: Path, events: list[str], new: bool
) -> None:
    folder = begun(tmp_path / "study", *events)
    refused(folder, new=new)
    assert {path.name for path in folder.iterdir()} == {SETTINGS, EVENTS, LOCK}


def test_a_refused_audit_can_be_corrected(tmp_path: Path) -> None:
    typed = ["audit", str(tmp_path / "audit"), "--attacks", "owner-name", *FEW]
    wrong = CliRunner().invoke(app, [*typed, "--set", "items=40"])
    assert "take fewer items" in str(wrong.exception)
    right = CliRunner().invoke(app, [*typed, "--set", "items=4"])
    assert (right.exit_code, right.exception) == (0, None)
