"""The cohort backend against the ClientApp called once per client."""

import json
from pathlib import Path

import pytest
from tests.simulation.local_grid import LocalGrid
from tests.simulation.small_run import prepare, run_locally, small_settings

from fedperfit.edge.agent import side_by_side
from fedperfit.edge.agent.agent import Agent
from fedperfit.protocol.system.errors import TooFewClients
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation import client_app, stored_models
from fedperfit.simulation.client_app import REFUSALS
from fedperfit.simulation.cohorts.grid import CohortGrid
from fedperfit.simulation.run.job import run_cohorts
from fedperfit.simulation.run.study import Study

pytestmark = pytest.mark.slow  # for what its tests share, whichever comes first


def quiet(event: str, values: dict[str, object]) -> None:
    pass


@pytest.fixture(scope="module", params=["LaMP_2M", "LaMP_4"])
def runs(request, tmp_path_factory) -> tuple[Path, Path]:
    """Two run folders of the same settings: client by client, and side by side."""
    root = tmp_path_factory.mktemp("runs")
    settings = small_settings(task=request.param, personal_epochs=2)
    run_locally(root / "alone", settings)
    clients = prepare(root / "together", settings)
    Study(CohortGrid(root / "together", clients), settings, root / "together", quiet).run()
    return root / "alone", root / "together"


def results(folder: Path) -> dict[str, dict[str, dict[str, object]]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((folder / "results").glob("*"))}


def test_the_collective_shift_is_the_same_up_to_rounding(runs):
    alone, together = (read_release(folder / FILE_NAME).shift for folder in runs)
    for name in ("R", "W", "b"):
        ours, reference = getattr(together, name), getattr(alone, name)
        assert (ours - reference).norm() < 1e-4 * reference.norm()


def test_every_phase_counts_and_answers_the_same(runs):
    alone, together = map(results, runs)
    assert alone.keys() == together.keys()
    for phase, clients in alone.items():
        assert clients.keys() == together[phase].keys()
        for client, result in clients.items():
            other = together[phase][client]
            assert other["items"] == result["items"]
            for metric, value in result["metrics"].items():
                assert other["metrics"][metric] == pytest.approx(value, rel=1e-3), (phase, client, metric)


def test_the_ledger_is_the_same_but_for_the_length_of_ids(runs):
    alone, together = runs
    for path in (alone / "ledger").iterdir():
        for ours, theirs in zip(lines(together / "ledger" / path.name), lines(path), strict=True):
            assert ours.pop("message") == pytest.approx(theirs.pop("message"), abs=300)
            assert ours == theirs


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def run_afresh(folder: Path, clients: int, settings) -> None:
    """Run as a new process would: no item is kept from before."""
    stored_models._copies.cache_clear()
    Study(CohortGrid(folder, clients), settings, folder, quiet).run()


def test_a_killed_run_resumes_to_the_same_collective_shift(tmp_path, monkeypatch):
    settings = small_settings(history_lengths=[], collective_sizes=[])
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    clients = prepare(whole, settings)
    run_afresh(whole, clients, settings)
    prepare(killed, settings)
    original, count = client_app._agent, 0

    def dying(context):
        nonlocal count
        count += 1
        if count == clients + 3:  # the first client of round 2
            raise Killed
        return original(context)

    with monkeypatch.context() as patched:
        patched.setattr(client_app, "_agent", dying)
        with pytest.raises(Killed):
            run_afresh(killed, clients, settings)
    assert not (killed / FILE_NAME).exists()
    run_afresh(killed, clients, settings)
    assert read_release(killed / FILE_NAME).packed == read_release(whole / FILE_NAME).packed


def test_one_broken_client_is_refused_and_the_others_go_on(tmp_path):
    settings = small_settings(history_lengths=[], collective_sizes=[], targets=3)
    folder = tmp_path / "run"
    clients = prepare(folder, settings)
    (folder / "clients" / "4" / "questions.jsonl").write_text("")  # a target without questions
    Study(CohortGrid(folder, clients), settings, folder, quiet).run()
    answered = results(folder)["evaluate-personal"]
    assert len(answered) == 2
    assert len(results(folder)["personalize"]) == 3


@pytest.mark.parametrize("backend", [CohortGrid, LocalGrid])
@pytest.mark.parametrize("place", ["job", "examples"])
def test_any_error_is_its_own_clients_and_on_file(tmp_path, backend, place, monkeypatch):
    """Not only errors that somebody thought of, wherever they are: in its own part or side by side."""
    settings = small_settings(history_lengths=[], collective_sizes=[], targets=3, rounds=1)
    folder = tmp_path / "run"
    clients = prepare(folder, settings)
    victim = json.loads((folder / "clients/4/client.json").read_text())["name"]
    if place == "job":
        failing_for(monkeypatch, Agent, "job", lambda agent: agent.history.name == victim)
    else:
        failing_for(
            monkeypatch, side_by_side, "fit", lambda jobs: any(j.order.endswith(f"/{victim}") for j in jobs)
        )
    Study(backend(folder, clients), settings, folder, quiet).run()
    assert len(results(folder)["personalize"]) == 2
    kept = [json.loads(line) for line in (folder / REFUSALS).read_text().splitlines()]
    assert {line["client"] for line in kept} == {"4"}
    assert "ValueError: nobody thought of this" in kept[0]["error"]
    assert "in failing" in kept[0]["traceback"]


def failing_for(monkeypatch, owner, name, chosen):
    original = getattr(owner, name)

    def failing(first, *arguments, **more):
        if chosen(first):
            raise ValueError("nobody thought of this")
        return original(first, *arguments, **more)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize("backend", [CohortGrid, LocalGrid])
def test_a_run_in_which_all_fail_is_a_failed_run_without_a_release(tmp_path, backend, monkeypatch):
    settings = small_settings(history_lengths=[], collective_sizes=[], rounds=1)
    folder = tmp_path / "run"
    clients = prepare(folder, settings)
    with monkeypatch.context() as patched:
        failing_for(patched, Agent, "job", lambda agent: True)
        with pytest.raises(TooFewClients, match="train: no round had the updates"):
            Study(backend(folder, clients), settings, folder, quiet).run()
    assert not (folder / FILE_NAME).exists()
    failing_for(monkeypatch, client_app, "personalize", lambda agents: True)
    with pytest.raises(TooFewClients, match="personalize: no client answered"):
        Study(backend(folder, clients), settings, folder, quiet).run()


def test_the_job_in_this_process_leaves_the_whole_folder(tmp_path):
    settings = small_settings(history_lengths=[], collective_sizes=[])
    folder = tmp_path / "run"
    prepare(folder, settings)
    seen: list[str] = []
    run_cohorts(folder, lambda event: seen.append(event["event"]))
    assert seen[0] == "start"
    assert seen[-2:] == ["done", "memory"]
    assert {"metrics.json", "report.html", "events.jsonl", FILE_NAME} <= {p.name for p in folder.iterdir()}
