"""Where a new run starts, and how one that ended for want of clients goes on."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from tests.cloud.deployment.clouds import make_cloud
from tests.cloud.fake_grid import FakeGrid, honest, perturbed

from fedperfit.cloud import server_app
from fedperfit.cloud.cli import main as cli
from fedperfit.cloud.cli.deployment import _line
from fedperfit.cloud.deployment import run as run_module
from fedperfit.cloud.deployment.home import CLOUD_KEY, CloudHome
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.run import CARD, START, prepare, run
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.job.basis import run_basis, shipped_basis
from fedperfit.cloud.job.events import EVENTS
from fedperfit.cloud.job.job import Job
from fedperfit.cloud.job.people import public_people
from fedperfit.cloud.job.settings import JobSettings
from fedperfit.cloud.rounds.checkpoint import Checkpoints
from fedperfit.protocol.messages.keys import STATUS_RECORD, STATUS_TYPE
from fedperfit.protocol.model.base_model import BaseModelCard, embedded_folder, read_card
from fedperfit.protocol.people.scatter import Scatter
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.system.files import json_lines, read_json, write_json
from fedperfit.protocol.trust.release import Release

CLIENTS = {1: "anna", 2: "ben"}


@pytest.fixture
def cloud(tmp_path: Path) -> tuple[CloudHome, CloudSettings, Release]:
    home, settings = make_cloud(tmp_path / "cloud", rounds=1)
    header = job(home.runs / "none", settings, []).trained_header
    shift = perturbed(Shift.identity(header.shape, seed=7), "released")
    return home, settings, CloudReleases(home.folder).publish(shift, header)


def job(folder: Path, settings: CloudSettings, said: list[str]) -> Job:
    grid = FakeGrid(CLIENTS, honest)

    def progress(event: str, values: dict[str, Any]) -> None:
        said.append(_line({"event": event, **values}))

    one = Job(grid, settings, folder, progress)
    one.names = dict(CLIENTS)
    return one


def began(home: CloudHome, settings: CloudSettings, name: str) -> tuple[Shift, list[str]]:
    """The shift that a run's first round broadcast, and what the run said."""
    said: list[str] = []
    folder = home.runs / name
    prepare(home, folder, settings, resume=False)
    run = job(folder, settings, said)
    run.train("train", list(CLIENTS.values()), run.start_from(folder / START))
    path = folder / "checkpoints" / "train"
    return Checkpoints(path)._read(Checkpoints(path).path(0)).shift, said


def same(one: Shift, other: Shift) -> bool:
    return all(
        torch.equal(getattr(one, name).detach(), getattr(other, name).detach()) for name in ("R", "W", "b")
    )


def test_a_new_run_starts_from_the_release_in_force(cloud: tuple[CloudHome, CloudSettings, Release]):
    home, settings, release = cloud
    start, said = began(home, settings, "one")
    assert same(start, release.shift)
    assert said[0] == "starting from release 1"


def test_unless_it_is_told_otherwise(cloud: tuple[CloudHome, CloudSettings, Release]):
    home, settings, release = cloud
    start, said = began(home, settings.replace(start_from="anew"), "anew")
    assert same(start, Shift.identity(release.header.shape, seed=settings.seed))
    assert not any("starting" in line for line in said)


def test_a_release_that_was_revoked_is_no_start(cloud: tuple[CloudHome, CloudSettings, Release]):
    home, settings, release = cloud
    CloudReleases(home.folder).revoke(release.version)
    start, _ = began(home, settings, "after")
    assert same(start, Shift.identity(release.header.shape, seed=settings.seed))


def test_a_run_needs_no_file_but_those_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Code of a run cannot read everything; and relative names are those of the folder of `init`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(embedded_folder(), tmp_path / "model")
    shipped = shipped_basis(JobSettings.from_some(read_preset("quickstart")), read_card("embedded"))
    assert shipped is not None
    (tmp_path / "mine.basis").write_bytes(shipped.to_bytes())
    people = Scatter.of(shipped.digest, torch.randn(4, shipped.numbers))
    (tmp_path / "my.scatter").write_bytes(people.to_bytes())
    files = {"base-model": "model", "basis-file": "mine.basis", "update-basis": "public"}
    files |= {"personal-basis": "update", "prior-source": "public", "prior-file": "my.scatter"}
    home, settings = make_cloud(tmp_path / "cloud", rounds=1, people_prior=True, **files)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder = home.runs / "one"
    prepare(home, folder, settings, resume=False)
    for name in ("model", "mine.basis", "my.scatter"):
        (tmp_path / name).rename(tmp_path / f"away-{name}")
    card = BaseModelCard(**read_json(folder / CARD))
    one = Job(FakeGrid(CLIENTS, honest), settings, folder, lambda *_: None, card=card)
    assert one.trained_header.fingerprint == read_card("embedded").fingerprint
    basis = run_basis(settings, card, folder)
    assert basis is not None
    assert basis.digest == shipped.digest
    assert public_people(basis, settings, folder).count == 3
    (tmp_path / "away-model").rename(tmp_path / "model")
    prepare(home, folder, settings, resume=True)  # the basis is in the folder since the run began
    write_json(folder / CARD, asdict(replace(card, fingerprint="0" * 64)))
    with pytest.raises(InputError, match="has changed since this run began"):
        prepare(home, folder, settings, resume=True)


def test_a_release_of_another_shape_is_no_start(cloud: tuple[CloudHome, CloudSettings, Release]):
    home, settings, _ = cloud
    start, said = began(home, settings.replace(collective_rank=2), "wider")
    assert start.shape.rank == 2
    assert said[0] == "starting anew, not in the shape of release 1"


def test_a_resumed_run_keeps_its_start(cloud: tuple[CloudHome, CloudSettings, Release]):
    home, settings, release = cloud
    folder = home.runs / "one"
    prepare(home, folder, settings, resume=False)
    CloudReleases(home.folder).publish(perturbed(release.shift, "later"), release.header)
    before = (folder / START).read_bytes()
    prepare(home, folder, settings, resume=True)
    assert (folder / START).read_bytes() == before == release.to_bytes()
    with pytest.raises(InputError, match="exists already"):
        prepare(home, folder, settings, resume=False)


class Grid(FakeGrid):
    """Clients that answer what they are, and then contribute, or are gone."""

    def __init__(self, clients: dict[int, str], settings: CloudSettings, *, gone: bool = False) -> None:
        super().__init__(clients, self._answer)
        self.about = {
            "fingerprint": read_card(settings.base_model).fingerprint,
            "task": settings.task_id,
            **{"history": 30, "questions": 0, "shares-metrics": False},
        }
        self.gone = gone

    def _answer(self, name: str, message: Message) -> list[Message]:
        if message.metadata.message_type == STATUS_TYPE:
            status = ConfigRecord({"client": name, **self.about})
            return [Message(RecordDict({STATUS_RECORD: status}), reply_to=message)]
        return [] if self.gone else honest(name, message)


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Runs or resumes the ServerApp until it would release; the run's events so far."""
    home, settings = make_cloud(tmp_path / "cloud", rounds=2, clients=2, **{"connect-seconds": 0.5})
    for node, name in CLIENTS.items():
        write_json(home.node(name), {"name": name, "node": str(node), "key": "k"})

    def stop(*_: object, **promise: object) -> None:
        raise RunFailed("here the signer would be asked")

    monkeypatch.setattr(server_app, "ask_for_release", stop)

    def run(grid: Grid | None = None, *, resume: bool = False, **changed: Any) -> list[dict[str, Any]]:
        now, folder = settings.replace(**changed), home.runs / "one"
        prepare(home, folder, now, resume=resume)
        config = {"run-dir": str(folder), CLOUD_KEY: str(home.folder)}
        context = Context(1, 1, {}, RecordDict(), config)
        with pytest.raises(RunFailed):
            server_app.main(grid or Grid(CLIENTS, now), context)
        return [value for _, value in json_lines(folder / EVENTS)]

    run.home, run.settings = home, settings  # type: ignore[attr-defined]
    return run


def rounds(events: list[dict[str, Any]]) -> list[int]:
    return [event["round"] for event in events if event["event"] == "round" and event["admitted"]]


def test_a_run_that_ended_for_want_of_clients_goes_on_when_fewer_are_asked_for(training):
    one = {1: "anna"}
    events = training(Grid(one, training.settings))
    assert (events[-1]["event"], events[-1]["too-few-clients"]) == ("failed", True)
    assert "1 of 2 clients" in events[-1]["reason"]
    events = training(Grid(one, training.settings), resume=True, clients=1)
    assert rounds(events) == [1, 2]
    assert events[-1]["reason"] == "here the signer would be asked"
    assert not events[-1]["too-few-clients"]


def test_what_was_trained_before_is_kept(training):
    training()
    path = training.home.runs / "one" / "checkpoints" / "train" / "round-0002.safetensors"
    trained = path.read_bytes()
    events = training(Grid({1: "anna"}, training.settings), resume=True)
    assert events[-1]["too-few-clients"]
    events = training(resume=True, clients=1)
    assert rounds(events) == [1, 2]
    assert path.read_bytes() == trained


def test_rounds_that_all_had_no_update_begin_again_with_a_longer_deadline(training):
    events = training(Grid(CLIENTS, training.settings, gone=True), deadline_seconds=0.2)
    assert events[-1]["too-few-clients"]
    assert rounds(events) == []
    events = training(resume=True, deadline_seconds=5.0)
    assert rounds(events) == [1, 2]


def test_settings_that_decide_the_result_are_not_corrected(training):
    training()
    with pytest.raises(InputError, match="deadline-seconds"):
        training(resume=True, deadline_seconds=5.0)
    with pytest.raises(InputError, match="in rounds"):
        training(resume=True, rounds=3)


@pytest.mark.parametrize(("few", "code"), [(True, 3), (False, 1)])
def test_the_terminal_says_why_it_ended_and_how_it_goes_on(training, monkeypatch, capsys, few, code):
    def stream(*_: object, on_event: Callable[[dict[str, Any]], None], **__: object) -> None:
        on_event({"event": "failed", "reason": "1 of 2 clients\x1b[2J", "too-few-clients": few})
        raise RunFailed("the run ended as 'finished:failed'")

    monkeypatch.setattr(run_module, "stream_run", stream)
    for name in ("wait_for_superlink", "stop_runs"):
        monkeypatch.setattr(run_module, name, lambda *_: None)
    arguments = ["fedperfit-cloud", "run", str(training.home.folder), "--name", "x y"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    assert stopped.value.code == code
    assert said.count("\n") == 1
    for words in ("1 of 2 clients", "--name 'x y' --resume", *(["connect-seconds"] if few else [])):
        assert words in said
    assert "\x1b" not in said


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/x", "."])
def test_a_runs_name_leads_nowhere_else(tmp_path, name):
    with pytest.raises(InputError, match="not a path"):
        run(CloudHome(tmp_path), name, resume=False, on_event=lambda _: None)
    assert list(tmp_path.iterdir()) == []
