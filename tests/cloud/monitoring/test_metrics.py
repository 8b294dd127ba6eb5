"""Health and metrics of a cloud: what they say of run and releases, and that nobody is named in them."""

import subprocess
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.cloud.deployment.clouds import make_cloud, needs_nginx
from tests.cloud.fake_grid import FakeGrid, honest

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.proxy import proxy_config, write_proxy
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.enrolment.registrar import application
from fedperfit.cloud.job.events import EVENTS, recorder
from fedperfit.cloud.job.job import Job
from fedperfit.cloud.monitoring import metrics
from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json

CLIENTS = {1: "anna", 2: "ben"}
Cloud = tuple[CloudHome, CloudSettings]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.setattr(metrics, "programs", lambda home: {"signer": True, "superlink": False})
    return make_cloud(tmp_path / "a cloud", rounds=2)


def lines(home: CloudHome) -> list[str]:
    answer = TestClient(application(home)).get("/metrics")
    assert answer.status_code == 200
    return [line for line in answer.text.splitlines() if not line.startswith("#")]


def test_a_run_and_its_release_are_told_in_numbers(cloud):
    home, settings = cloud
    folder = home.runs / "one"
    folder.mkdir(parents=True)
    progress = recorder(folder, lambda event: None)
    progress("start", {"run": str(folder)})
    run = Job(FakeGrid(CLIENTS, honest), settings, folder, progress)
    run.names = dict(CLIENTS)
    progress("connected", {"clients": 2})
    _, shift = run.train("train", list(CLIENTS.values()))
    CloudReleases(home.folder).publish(shift, run.trained_header)
    write_json(home.node("anna"), {"name": "anna", "node": "1", "key": "k"})
    write_json(home.node("ben"), {"name": "ben", "node": "2", "key": "k", "leaving": True})
    told = lines(home)
    for line in (
        *("fedperfit_cloud_run_round 2", "fedperfit_cloud_run_rounds 2", "fedperfit_cloud_run_clients 2"),
        *("fedperfit_cloud_run_asked 2", "fedperfit_cloud_run_answered 2", "fedperfit_cloud_run_done 0"),
        *("fedperfit_cloud_run_updates_admitted 4", "fedperfit_cloud_enrolled_clients 1"),
        *("fedperfit_cloud_release_version 1", 'fedperfit_cloud_program_up{program="superlink"} 0'),
    ):
        assert line in told
    sizes = [float(line.split()[-1]) for line in told if line.startswith("fedperfit_cloud_run_bytes")]
    assert min(sizes) > 1_000
    assert not [line for line in told if "anna" in line or "ben" in line or str(home.folder) in line]


def test_before_the_first_run_there_are_no_numbers_of_one(cloud):
    assert not [line for line in lines(cloud[0]) if "run_" in line or "release_" in line]


def test_an_unfinished_event_and_one_of_an_earlier_version_are_read(cloud):
    home, _ = cloud
    path = home.runs / "one" / EVENTS
    path.parent.mkdir(parents=True)
    earlier = '{"event": "round", "round": 1, "rounds": 2, "admitted": 1, "dropped": 3, "down": 1, "up": 1}'
    path.write_text(earlier + '\n{"event": "rou')
    assert 'fedperfit_cloud_run_dropped{kind="other"} 3' in lines(home)


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "rou',
        '["round"]',
        '{"event": "round", "round": 1}',
        '{"event": "phase", "clients": ""}',
    ],
)
def test_what_is_no_event_costs_the_figures_of_the_run_alone_and_is_named(cloud, caplog, line):
    home, _ = cloud
    path = home.runs / "one" / EVENTS
    path.parent.mkdir(parents=True)
    path.write_text(line + '\n{"event": "done"}\n')
    told = lines(home)
    assert "fedperfit_cloud_enrolled_clients 0" in told
    assert not [line for line in told if "run_" in line]
    assert f"left out of the metrics: {path}, line 1: " in caplog.text


def test_a_broken_record_of_a_client_costs_their_number_alone_and_is_named(cloud, caplog):
    home, _ = cloud
    home.node("anna").parent.mkdir(exist_ok=True)
    home.node("anna").write_text('["anna"]')
    assert not [line for line in lines(home) if "enrolled" in line]
    assert f"left out of the metrics: {home.node('anna')}: " in caplog.text


def test_what_was_dropped_is_told_by_kind_and_not_in_the_clients_words():
    reasons = {
        "a": "no reply within 120 s",
        "b": "error reply (code 3): Refused",
        "c": "W contains NaN",
        "d": "error reply (code 3): my secret",
    }
    empty = {"admitted": [], "skipped": True, "items": 0, "loss": None, "bytes_down": 0, "bytes_up": 0}
    report = RoundReport(round=1, asked=list(reasons), dropped=reasons, **empty)
    assert report.dropped_kinds() == {"late": 1, "refused by the edge": 2, "not admitted": 1}


@pytest.mark.parametrize(("there", "status"), [(True, 200), (False, 503)])
def test_health_is_that_of_signer_and_superlink(cloud, monkeypatch, there, status):
    monkeypatch.setattr(metrics, "programs", lambda home: {"signer": True, "superlink": there})
    answer = TestClient(application(cloud[0])).get("/healthz")
    assert answer.status_code == status
    assert "superlink" in answer.text or there


@needs_nginx
def test_they_have_a_port_of_the_loopback_only_where_it_is_set(cloud):
    home, settings = cloud
    (home.folder / "logs").mkdir()
    for port in (0, 19_199):
        command = write_proxy(home, settings.replace(metrics_port=port), root=False, patience=5)
        written = proxy_config(home).read_text()
        assert ("listen 127.0.0.1:19199;" in written) is bool(port)
        assert written.count("/metrics") == (2 if port else 0)
        subprocess.run([*command, "-t"], check=True, capture_output=True)


def test_a_port_of_another_setting_is_refused(cloud):
    _, settings = cloud
    with pytest.raises(InputError, match="metrics-port"):
        settings.replace(metrics_port=settings.superlink_port)
