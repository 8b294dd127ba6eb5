from pathlib import Path
from typing import Any

import pytest

from fedperfit.cloud.job import events
from fedperfit.cloud.job.events import EVENTS, OnEvent, recording
from fedperfit.protocol.system.errors import RunFailed, TooFewClients
from fedperfit.protocol.system.files import append_text, read_json_lines

ENDINGS = {
    "a failure": (RunFailed("no client answered"), "no client answered", False),
    "too few clients": (TooFewClients("1 of 2 clients"), "1 of 2 clients", True),
    "the system": (OSError(28, "No space left on device", "clients/3"), "No space left on device", False),
}


def end_by(error: BaseException, folder: Path, on_event: OnEvent = lambda event: None) -> None:
    with recording(folder, on_event) as record:
        record("start", {"run": "here"})
        raise error


@pytest.mark.parametrize(("error", "told", "few"), ENDINGS.values(), ids=ENDINGS)
def test_what_ends_a_run_is_its_last_event(error: Exception, told: str, few: bool, tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    with pytest.raises(type(error), match=told):
        end_by(error, tmp_path, heard.append)
    lines = read_json_lines(tmp_path / EVENTS)
    assert lines == heard
    assert [line["event"] for line in lines] == ["start", "failed"]
    assert told in lines[-1]["reason"]
    assert lines[-1]["too-few-clients"] is few


def test_a_full_disk_is_told_though_nothing_can_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_after_the_start(path: Path, text: str) -> None:
        if path.exists():
            raise OSError(28, "No space left on device", str(path))
        append_text(path, text)

    monkeypatch.setattr(events, append_text.__name__, full_after_the_start)
    with pytest.raises(RunFailed, match="no client answered"):
        end_by(RunFailed("no client answered"), tmp_path)
    assert [line["event"] for line in read_json_lines(tmp_path / EVENTS)] == ["start"]


def test_a_stop_by_hand_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        end_by(KeyboardInterrupt(), tmp_path)
    assert [line["event"] for line in read_json_lines(tmp_path / EVENTS)] == ["start"]
