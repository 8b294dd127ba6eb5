"""The cohort backend against the ClientApp called once per client."""

import json
from pathlib import Path

import pytest
from tests.simulation.small_run import prepare, run_locally, small_settings

from fedperfit.protocol.trust.release import FILE_NAME, read_release
from fedperfit.simulation import client_app
from fedperfit.simulation.run.cohort_grid import CohortGrid
from fedperfit.simulation.run.job import run_in_process
from fedperfit.simulation.run.study import Study


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
    client_app._loaded.cache_clear()
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


def test_the_job_in_this_process_leaves_the_whole_folder(tmp_path):
    settings = small_settings(history_lengths=[], collective_sizes=[])
    folder = tmp_path / "run"
    prepare(folder, settings)
    seen: list[str] = []
    run_in_process(folder, lambda event: seen.append(event["event"]))
    assert seen[0] == "start"
    assert seen[-2:] == ["done", "memory"]
    assert {"metrics.json", "report.html", "events.jsonl", FILE_NAME} <= {p.name for p in folder.iterdir()}
