"""What each tracker wrote of a run's events, read back with what the tracker itself reads it with."""

import io
import json
import logging
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, call

import pytest
from PIL import Image
from tests.cloud.tracking.wandb_records import records

from fedperfit.cloud.tracking.names import TrackerName, check_installed
from fedperfit.cloud.tracking.sink import IDENTITIES, tracked
from fedperfit.cloud.tracking.tensorboard import FOLDER, TensorBoard
from fedperfit.cloud.tracking.wandb import _PATIENCE
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json

PERSON, TEXT = "Ada-Lovelace-1815", "what nobody else may read"


class Dot:
    """A picture of four pixels."""

    def png(self) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (2, 2), "red").save(file, "PNG")
        return file.getvalue()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder below the home, where every tracker is told to keep what it keeps."""
    home = tmp_path / "ada"
    folder = home / "runs" / "one"
    folder.mkdir(parents=True)
    write_json(folder / "settings.json", {"rounds": 2, "data": str(home / "data"), "layers": [1, 2]})
    for name in ("HOME", "WANDB_DIR", "TRACKIO_DIR"):
        monkeypatch.setenv(name, str(home))
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(home / "runs")
    return folder


def play(tracker: str, folder: Path, rounds: tuple[int, ...] = (1, 2)) -> None:
    """Hand the events of a run to a tracker; some of what they hold must not reach it."""
    with tracked([TrackerName(tracker)], "simulate", lambda folder: {"By stage": Dot()}) as take:
        take({"event": "start", "run": str(folder), "owner": PERSON})
        take({"event": "connected", "clients": 3, "names": [PERSON]})
        for number in rounds:
            figures = {"loss": 1.0 / number, "admitted": 3, "dropped": 0, "down": 40, "up": 20}
            take({"event": "round", "phase": "train", "round": number, **figures, "who": PERSON})
        take({"event": "round", "phase": "train", "round": 3, "loss": None, "admitted": 0, "text": TEXT})
        take({"event": "work", "done": 1, "total": 2, "seconds": 0.5, "last": f"inversion: {PERSON}"})
        take({"event": "figures", "figures": {"stages/personal/accuracy/value": 0.875}})
        take({"event": "done", "report": str(folder / "report.html")})


def assert_private(*paths: Path, home: Path) -> None:
    """Nothing in the files names the person, the text, or the home, which has a person's name."""
    written = b"".join(path.read_bytes() for path in paths)
    assert written
    for secret in (PERSON, TEXT, str(home)):
        assert secret.encode() not in written
        assert json.dumps(secret).strip('"').encode() not in written


def test_tensorboard(run: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    play("tensorboard", run)
    read = EventAccumulator(str(run / FOLDER)).Reload()
    assert [(point.step, point.value) for point in read.Scalars("train/loss")] == [(1, 1.0), (2, 0.5)]
    assert [point.value for point in read.Scalars("train/admitted")] == [3, 3, 0]
    assert [point.value for point in read.Scalars("final/stages/personal/accuracy/value")] == [0.875]
    assert Image.open(io.BytesIO(read.Images("By stage")[0].encoded_image_string)).size == (2, 2)
    said = {tag: read.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in read.Tags()["tensors"]}
    assert "| data | ~/data |" in said["settings/text_summary"]
    assert "| version/torch |" in said["settings/text_summary"]
    assert said["report/text_summary"] == "`one/report.html`"
    assert_private(*(run / FOLDER).iterdir(), home=run.parents[1])


def test_wandb_offline(run: Path) -> None:
    pytest.importorskip("wandb")
    play("wandb", run)
    play("wandb", run, rounds=(2,))
    first, second = sorted(run.parents[1].glob("wandb/offline-run-*/*.wandb"))
    assert first.name == second.name == f"run-{read_json(run / IDENTITIES)['wandb']}.wandb"
    for path, losses in ((first, [1.0, 0.5]), (second, [0.5])):
        kept = list(records(path))
        logged = [
            {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in one.history.item}
            for one in kept
            if one.WhichOneof("record_type") == "history"
        ]
        assert [one["train/loss"] for one in logged if "train/loss" in one] == losses
        assert any("By stage" in key for one in logged for key in one)
        told = {}
        for one in kept:
            for item in one.summary.update:
                told["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        assert told["final/stages/personal/accuracy/value"] == 0.875
        assert told["report"] == "one/report.html"
        (begun,) = [one.run for one in kept if one.WhichOneof("record_type") == "run"]
        config = {"/".join(item.nested_key) or item.key: item.value_json for item in begun.config.update}
        assert config["data"] == '"~/data"'
        assert (begun.display_name, begun.project, begun.host) == ("one", "fedperfit", "")
        assert_private(path, home=run.parents[1])  # what `wandb sync` sends; logs beside it stay
    assert list(first.parent.glob("files/media/images/*.png"))


def test_wandb_online_needs_a_login(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(InputError, match="nobody is logged in"):
        play("wandb", run)


@pytest.mark.parametrize(("mode", "said"), [("garbage", "expected one of offline"), ("shared", "nobody is")])
def test_a_mode_of_wandb_that_cannot_be_is_told(
    mode: str, said: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(api=SimpleNamespace(api_key="")))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"^WANDB_MODE={mode}: {said}"):
        play("wandb", run)


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [(None, "FINISHED", 0), (ValueError, "FAILED", 1), (KeyboardInterrupt, "KILLED", 255)],
)
def test_a_tracker_is_told_how_a_run_ended(
    error: type[BaseException] | None, state: str, code: int, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow, wandb = MagicMock(), MagicMock()
    mlflow.get_tracking_uri.return_value = "http://localhost"
    mlflow.tracking.MlflowClient().create_run().info.run_id = "a"
    for name, library in (("mlflow", mlflow), ("wandb", wandb)):
        monkeypatch.setitem(sys.modules, name, library)
    with (
        pytest.raises(error) if error else nullcontext(),
        tracked([TrackerName.MLFLOW, TrackerName.WANDB], "simulate") as take,
    ):
        take({"event": "start", "run": str(run)})
        if error:
            raise error
    assert mlflow.tracking.MlflowClient().set_terminated.call_args == call("a", status=state)
    assert wandb.init().finish.call_args == call(exit_code=code)


@pytest.mark.parametrize(
    ("name", "variable", "patience"),
    [
        (TrackerName.WANDB, "WANDB_INIT_TIMEOUT", "15"),
        (TrackerName.MLFLOW, "MLFLOW_HTTP_REQUEST_TIMEOUT", "5"),
    ],
)
def test_a_server_is_waited_for_some_seconds_or_as_the_user_says(
    name: TrackerName, variable: str, patience: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, variable: "40"})
    monkeypatch.setitem(sys.modules, name.value, MagicMock())
    with tracked([name], "simulate") as take:
        take({"event": "start", "run": str(run)})
        assert os.environ[variable] == "40"
    del os.environ[variable]
    with tracked([name], "simulate") as take:
        take({"event": "start", "run": str(run)})
        assert os.environ[variable] == patience


def test_a_server_of_wandb_that_does_not_answer_is_not_waited_for(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wandb = pytest.importorskip("wandb")
    for name, value in (("MODE", "online"), ("API_KEY", "0" * 40), ("BASE_URL", "http://127.0.0.1:9")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.delenv("WANDB_INIT_TIMEOUT", raising=False)
    monkeypatch.setitem(_PATIENCE, "WANDB_INIT_TIMEOUT", "1")
    wandb.teardown()  # it keeps the settings of earlier runs
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING, "fedperfit"):
        play("wandb", run)
    assert time.monotonic() - begun < 10
    (said,) = [record.message for record in caplog.records if record.name.startswith("fedperfit")]
    assert said.startswith("wandb does not follow this run: Timed out")
    wandb.teardown()


def test_a_server_of_mlflow_that_does_not_answer_is_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with caplog.at_level(logging.WARNING):
        play("mlflow", run)
    (said,) = caplog.messages
    assert said.startswith("mlflow does not follow this run: ")


def test_a_database_that_cannot_be_opened_is_not_waited_for(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library = SimpleNamespace(get_tracking_uri=lambda: f"sqlite:///{run}/nowhere/mlflow.db")
    monkeypatch.setitem(sys.modules, "mlflow", library)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        play("mlflow", run)
    assert caplog.messages == ["mlflow does not follow this run: unable to open database file"]


def test_mlflow_begins_anew_where_its_store_is_another(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    play("mlflow", run)
    first = read_json(run / IDENTITIES)["mlflow"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{run.parent}/another.db")
    play("mlflow", run)
    second = read_json(run / IDENTITIES)["mlflow"]
    assert first != second
    assert mlflow.tracking.MlflowClient().get_run(second).info.status == "FINISHED"


def test_mlflow(run: Path) -> None:
    client = pytest.importorskip("mlflow").tracking.MlflowClient()
    play("mlflow", run)
    play("mlflow", run, rounds=(2,))
    experiment = client.get_experiment_by_name("fedperfit").experiment_id
    (kept,) = client.search_runs([experiment])
    assert (kept.info.run_name, kept.info.status) == ("one", "FINISHED")
    history = client.get_metric_history(kept.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5), (2, 0.5)]
    assert kept.data.metrics["final/stages/personal/accuracy/value"] == 0.875
    assert kept.data.params["data"] == "~/data"
    assert kept.data.tags["report"] == "one/report.html"
    assert [file.path for file in client.list_artifacts(kept.info.run_id)] == ["By stage.png"]
    assert not {PERSON, TEXT} & {*kept.data.params.values(), *kept.data.tags.values()}
    assert kept.info.user_id in (None, "", "unknown")


def test_trackio(run: Path) -> None:
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    play("trackio", run)
    play("trackio", run, rounds=(2,))
    assert SQLiteStorage.get_runs("fedperfit") == ["one"]
    logs = SQLiteStorage.get_logs("fedperfit", "one")
    losses = [(log["train/step"], log["train/loss"]) for log in logs if "train/loss" in log]
    assert losses == [(1, 1.0), (2, 0.5), (2, 0.5)]
    (final, _) = [log for log in logs if "report" in log]
    assert final["final/stages/personal/accuracy/value"] == 0.875
    assert final["report"] == "one/report.html"
    assert final["By stage"]["_type"] == trackio.Image.TYPE
    config = SQLiteStorage.get_run_config("fedperfit", "one")
    assert (config["data"], config["command"], config["_Username"]) == ("~/data", "simulate", None)
    kept = SQLiteStorage.get_project_db_path("fedperfit")
    assert_private(*kept.parent.glob(f"{kept.stem}*"), home=run.parents[1])


def test_a_tracker_that_fails_is_left_out(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(TensorBoard, "figures", full)
    with caplog.at_level(logging.WARNING):
        play("tensorboard", run)
    assert caplog.messages == ["tensorboard no longer follows this run: no space left"]


@pytest.mark.parametrize("content", [b'{"name": "a', b"[7]", b'{"name": 7}', b"\xff"])
def test_a_broken_file_of_identities_does_not_end_a_run(
    run: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")
    (run / IDENTITIES).write_bytes(content)
    play("tensorboard", run)
    assert IDENTITIES in caplog.text
    assert read_json(run / IDENTITIES)
    caplog.clear()
    play("tensorboard", run)
    assert not caplog.text


def test_a_reason_of_many_lines_is_one(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")

    def wrong(*_: Any) -> None:
        raise ValueError("one\ntwo  " + "x" * 1_000)

    monkeypatch.setattr(TensorBoard, "begin", wrong)
    with caplog.at_level(logging.WARNING):
        play("tensorboard", run)
    (said,) = caplog.messages
    assert said.startswith("tensorboard does not follow this run: one two x")
    assert len(said) < 400


def test_plots_that_cannot_be_drawn_do_not_end_a_run(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("tensorboard")

    def broken(folder: Path) -> dict[str, Dot]:
        raise OSError("no space left")

    with caplog.at_level(logging.WARNING), tracked([TrackerName.TENSORBOARD], "simulate", broken) as take:
        take({"event": "start", "run": str(run)})
        take({"event": "done", "report": ""})
    assert caplog.messages == ["trackers get no plots: no space left"]


def test_the_libraries_tell_their_makers_nothing_unless_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "true")
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace())  # type: ignore[arg-type]
    check_installed([TrackerName.MLFLOW])
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["WANDB_ERROR_REPORTING"] == "true"


def test_a_missing_library_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(InputError, match=r"^--track trackio: .* pip install 'fedperfit\[trackio\]'$"):
        check_installed([TrackerName.TRACKIO])


def test_a_library_that_fits_no_other_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trackio.py").write_text("raise TypeError('Descriptors cannot be created.\\nDowngrade')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    with pytest.raises(InputError, match=r"^--track trackio: .* \(Descriptors .* Downgrade\): pip install"):
        check_installed([TrackerName.TRACKIO])


def test_without_trackers_nothing_is_written(run: Path) -> None:
    with tracked(None, "simulate") as take:
        take({"event": "start", "run": str(run)})
        take({"event": "done", "report": ""})
    assert [path.name for path in run.iterdir()] == ["settings.json"]
