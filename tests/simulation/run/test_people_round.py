"""A round of many passes tells how people differ, and changes nothing else."""

from pathlib import Path

import pytest
import torch
from tests.simulation.local_grid import LocalGrid
from tests.simulation.small_run import prepare, run_locally, small_settings

from fedperfit.cloud.job.job import PEOPLE
from fedperfit.edge.agent.history import read_history
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.model.base_model import load
from fedperfit.protocol.people.people import People
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.system.errors import TooFewClients
from fedperfit.protocol.trust.release import FILE_NAME, Release
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation import client_app
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.run.study import Study

pytestmark = pytest.mark.slow  # for the runs that its tests share, whichever comes first
EPOCHS = 3


def wanted(epochs: int) -> RunSettings:
    return small_settings(
        update_basis="random",
        personal_basis="update",
        people_prior=True,
        people_epochs=epochs,
        prior_directions=2,
        prior_floor=0.5,
        history_lengths=[4],
        collective_sizes=[],
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people") / "run"
    run_locally(folder, wanted(EPOCHS))
    return folder


def people_of(release: Release) -> People:
    assert release.people is not None
    return release.people


def test_the_prior_is_of_updates_from_the_shift_that_is_released(run: Path) -> None:
    release, settings, base = read_release(run / FILE_NAME), wanted(EPOCHS), load("embedded", device="cpu")
    people = people_of(release)
    begun = Coordinates.of_shift(people.basis, release.shift)
    assert begun is not None
    training = settings.collective_training().replace(epochs=EPOCHS)
    changes = []
    for number in range(settings.others):
        other = read_history(run / "clients" / str(number))
        own = Coordinates.of(people.basis, begun.numbers.clone())
        examples = encode(base, other.pairs(training.prompt_form, training.max_items))
        fit([FitJob(own, examples, f"{training.seed}/{other.name}/0")], training, ItemCache(base))
        changes.append(own.numbers - begun.numbers)
    centred = torch.stack(changes).double()
    centred -= centred.mean(0)
    lengths = centred.norm(dim=1)
    centred *= (lengths.median() / lengths).clamp(max=1)[:, None]
    covariance = centred.T @ centred / (len(centred) - 1)
    expected = torch.linalg.eigvalsh(covariance).flip(0)[:2].sqrt()
    assert people.prior is not None
    torch.testing.assert_close(people.prior.deviations.double(), expected, rtol=1e-2, atol=1e-5)
    along = people.prior.directions.double()
    torch.testing.assert_close((along @ covariance @ along.T).diag().sqrt(), expected, rtol=1e-2, atol=1e-5)


def test_every_client_is_asked_once_more_and_nothing_else_changes(run: Path, tmp_path: Path) -> None:
    settings = wanted(0)
    run_locally(tmp_path / "run", settings)
    with_round, without = (read_release(folder / FILE_NAME) for folder in (run, tmp_path / "run"))
    assert with_round.packed == without.packed
    told, untold = people_of(with_round).prior, people_of(without).prior
    assert told is not None
    assert untold is not None
    assert not torch.allclose(told.deviations, untold.deviations, rtol=0.1)
    entries = {name: Ledger(run / "ledger" / f"{name}.jsonl").entries() for name in (PEOPLE, "train")}
    sent = [entry for entry in entries[PEOPLE] if entry.direction == "up"]
    assert len({entry.client for entry in sent}) == len(sent) == settings.others
    most = max(entry.payload for entry in entries["train"] if entry.direction == "up")
    assert max(entry.payload for entry in sent) == most
    assert not (tmp_path / "run" / "ledger" / f"{PEOPLE}.jsonl").exists()


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_killed_in_that_round_a_run_ends_as_it_would_have(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, folder = wanted(EPOCHS), tmp_path / "run"
    clients = prepare(folder, settings)
    original, count = client_app._agent, 0

    def dying(context: object) -> object:
        nonlocal count
        count += 1
        if count == clients + settings.rounds * settings.clients_per_round + 2:
            raise Killed
        return original(context)  # type: ignore[arg-type]

    monkeypatch.setattr(client_app, "_agent", dying)
    with pytest.raises(Killed):
        Study(LocalGrid(folder, clients), settings, folder, lambda event, values: None).run()
    assert Ledger(folder / "ledger" / f"{PEOPLE}.jsonl").entries()
    assert not (folder / FILE_NAME).exists()
    monkeypatch.setattr(client_app, "_agent", original)
    Study(LocalGrid(folder, clients), settings, folder, lambda event, values: None).run()
    resumed, whole = (people_of(read_release(one / FILE_NAME)) for one in (folder, run))
    assert resumed.to_bytes() == whole.to_bytes()


def test_a_people_round_without_updates_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, folder = wanted(EPOCHS), tmp_path / "run"
    grid = LocalGrid(folder, prepare(folder, settings))
    original = client_app.contribute_coordinates

    def refusing(agents, request, training, items):  # type: ignore[no-untyped-def]
        if training.epochs == EPOCHS:
            raise ValueError("no")
        return original(agents, request, training, items)

    monkeypatch.setattr(client_app, "contribute_coordinates", refusing)
    with pytest.raises(TooFewClients, match="people: no round had the updates it needs"):
        Study(grid, settings, folder, lambda event, values: None).run()
    assert not (folder / FILE_NAME).exists()
