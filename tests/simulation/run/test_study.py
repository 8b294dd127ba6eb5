import json
from pathlib import Path

import pytest
from tests.simulation.data.lamp_folders import item, time_split, write
from tests.simulation.local_grid import LocalGrid
from tests.simulation.small_run import prepare, run_locally, small_settings

from fedperfit.protocol.system.errors import TooFewClients
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation import client_app
from fedperfit.simulation.run.report import write_report
from fedperfit.simulation.run.study import Study
from fedperfit.simulation.run.summary import write_metrics

pytestmark = pytest.mark.slow  # for what its tests share, whichever comes first


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    run_locally(folder, small_settings())
    return folder


def results(folder: Path) -> dict[str, object]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((folder / "results").glob("*"))}


def test_every_phase_leaves_its_result(finished):
    names = set(results(finished))
    assert names == {
        *("personalize", "evaluate-base", "evaluate-collective", "evaluate-personal"),
        *("history-0", "history-4", "history-4-fit"),
        *("collective-2", "collective-2-fit", "collective-2-personal"),
        *("collective-3", "collective-3-fit", "collective-3-personal"),
    }
    release = read_release(finished / FILE_NAME)
    assert release.header.round == 2
    assert len(json.loads((finished / "rounds.json").read_text())) == 2


@pytest.mark.parametrize("prior", [False, True])
def test_what_the_history_study_has_asked_is_not_asked_again_where_it_is_the_same(tmp_path, prior):
    """With and without a history study the collective study ends alike; under a prior its fits differ."""
    priors = {"update_basis": "random", "people_prior": True, "personal_basis": "update"} if prior else {}
    apart = small_settings(history_lengths=[], collective_study_items=4, **priors)
    together = small_settings(history_lengths=[0, 4], collective_study_items=4, **priors)
    run_locally(tmp_path / "apart", apart)
    run_locally(tmp_path / "together", together)
    alone, found = results(tmp_path / "apart"), results(tmp_path / "together")
    assert {name: found[name] for name in alone} == alone
    asked = {path.stem for path in (tmp_path / "together" / "ledger").iterdir()}
    again = {"collective-3-fit", "collective-3-personal"}
    assert again <= asked if prior else not again & asked
    assert "collective-3" not in asked
    assert found["collective-3"] == found["history-0"]


def test_whose_profiles_have_no_item_in_common_costs_that_user_alone(tmp_path):
    """In LaMP's time split a history is what all profiles of a user hold."""
    files = time_split()
    files["dev_questions.json"][2]["profile"] = [item(4)]
    data = write(tmp_path / "data", files)
    settings = small_settings(
        task="LaMP_3", data=str(data), clients_per_round=1, history_lengths=[], collective_sizes=[]
    )
    run_locally(tmp_path / "run", settings)
    found = results(tmp_path / "run")
    assert {phase: len(result) for phase, result in found.items()} == {
        "evaluate-base": 2,
        "evaluate-collective": 2,
        "personalize": 1,
        "evaluate-personal": 1,
    }


def test_report_and_metrics(finished):
    write_metrics(finished)
    html = write_report(finished).read_text()
    assert "LaMP_2M" in html
    assert json.loads((finished / "metrics.json").read_text())


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("after", [3, 6, 9, 14, 20])
def test_a_killed_run_resumes_to_the_same_result(tmp_path, finished, monkeypatch, after):
    """The client dies at the `after`-th message; resumed, the run ends as the uninterrupted one."""
    settings = small_settings()
    folder = tmp_path / "run"
    clients = prepare(folder, settings)
    original, count = client_app._agent, 0

    def dying(context):
        nonlocal count
        count += 1
        if count == clients + after:
            raise Killed
        return original(context)

    monkeypatch.setattr(client_app, "_agent", dying)
    with pytest.raises(Killed):
        Study(LocalGrid(folder, clients), settings, folder, lambda event, values: None).run()
    monkeypatch.setattr(client_app, "_agent", original)
    Study(LocalGrid(folder, clients), settings, folder, lambda event, values: None).run()
    assert read_release(folder / FILE_NAME).packed == read_release(finished / FILE_NAME).packed
    assert results(folder) == results(finished)
    for ledger in (finished / "ledger").iterdir():
        assert (folder / "ledger" / ledger.name).read_text() == ledger.read_text()


def test_an_error_reply_names_the_type_of_the_error_only(tmp_path, monkeypatch):
    """An exception may quote a person's history; the server sees its type."""
    settings = small_settings(history_lengths=[], collective_sizes=[])
    folder = tmp_path / "run"
    grid = LocalGrid(folder, prepare(folder, settings))
    secret = "the text of a history item"

    def broken(*args, **kwargs):
        raise ValueError(secret)

    monkeypatch.setattr("fedperfit.simulation.client_app.personalize", broken)
    with pytest.raises(TooFewClients, match="personalize: no client answered"):
        Study(grid, settings, folder, lambda event, values: None).run()
    errors = {error for _, _, _, error in grid.received if error}
    assert any("ValueError" in error for error in errors)
    assert not any(secret in error for error in errors)
