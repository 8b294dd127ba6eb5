"""Public people tell how people differ, and no client has to."""

from pathlib import Path

import pytest
import torch
from tests.simulation.local_grid import LocalGrid
from tests.simulation.small_run import prepare, run_locally, small_settings
from typer.testing import CliRunner

from fedperfit.cloud.job.people import PUBLIC_PEOPLE, released_people
from fedperfit.cloud.job.settings import JobSettings
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.model.base_model import BaseModel, load
from fedperfit.protocol.people.scatter import Scatter
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Pair
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation.basis import people as fitting
from fedperfit.simulation.basis import prepared as public
from fedperfit.simulation.basis.people import people_of_data, world_people, write_people
from fedperfit.simulation.cli import app
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.run.study import Study

pytestmark = pytest.mark.slow  # for the model and the runs that its tests share, whichever comes first
IN_A_BASIS = {
    "update-basis": "random",
    "update-columns": 3,
    "personal-columns": 3,
    "personal-basis": "update",
}
PUBLIC = {"people-prior": True, "prior-source": "public", "prior-floor": 0.3}


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def settings() -> JobSettings:
    return JobSettings.from_some(read_preset("quickstart") | IN_A_BASIS | PUBLIC)


@pytest.fixture(scope="module")
def basis(base: BaseModel, settings: JobSettings) -> Basis:
    about = {"task": settings.task_id, "fingerprint": base.card.fingerprint, "seed": 0}
    return random_basis(settings.shape(base.card), 3, **about)  # type: ignore[arg-type]


def few(settings: JobSettings, people: int = 4, items: int = 6) -> list[list[Pair]]:
    return world_people(settings, people, items)


@pytest.fixture(autouse=True)
def few_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "world_people", few)


def small(**changes: object) -> RunSettings:
    return small_settings(history_lengths=[4], collective_sizes=[], **IN_A_BASIS | PUBLIC | changes)


def test_it_is_of_fits_of_each_person_alone(
    base: BaseModel, settings: JobSettings, basis: Basis, tmp_path: Path
) -> None:
    people, told = world_people(settings, 3, 6), []
    scatter = write_people(
        tmp_path / "x", base, settings, basis, people, lambda fitted, of: told.append((fitted, of))
    )
    training, fits = settings.collective_training().replace(epochs=30, max_items=0), []
    for number, pairs in enumerate(people):
        own = Coordinates.zero(basis)
        fit([FitJob(own, encode(base, pairs), f"public/{number}")], training, ItemCache(base))
        fits.append(own.numbers)
    expected = Scatter.of(basis.digest, torch.stack(fits))
    torch.testing.assert_close(scatter.total, expected.total, rtol=1e-2, atol=1e-4)
    assert scatter.count == 2
    assert told[-1] == (3, 3)
    kept = Scatter.from_bytes((tmp_path / "x").read_bytes(), basis.digest, basis.numbers)
    assert torch.equal(kept.total.float(), scatter.total.float())


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_stopped_it_goes_on_to_the_same_file_and_with_other_people_anew(
    base: BaseModel,
    settings: JobSettings,
    basis: Basis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fitting, "cohorts", lambda jobs, *_: ([job] for job in jobs))
    people, counts = world_people(settings, 3, 6), list[int]()

    def write(name: str, people: list[list[Pair]], killed_after: int = 9) -> bytes:
        def on_person(fitted: int, of: int) -> None:
            counts.append(fitted)
            if fitted == killed_after:
                raise Killed

        write_people(tmp_path / name, base, settings, basis, people, on_person)
        return (tmp_path / name).read_bytes()

    whole = write("whole", people)
    for _ in range(2):
        with pytest.raises(Killed):
            write("x", people, killed_after=2)
        counts.append(0)
        assert not (tmp_path / "x").exists()
        (tmp_path / "x.part").rename(tmp_path / "kept")
        (tmp_path / "x.part").write_bytes(b"half written")
    (tmp_path / "kept").rename(tmp_path / "x.part")
    assert write("x", people) == whole
    assert counts == [1, 2, 3, 1, 2, 0, 1, 2, 0, 3]
    with pytest.raises(Killed):
        write("y", people, killed_after=1)
    assert write("y", people[1:]) == write("z", people[1:])
    assert not list(tmp_path.glob("*.part"))


def test_people_without_items_count_for_nothing_and_one_is_too_few(
    base: BaseModel, settings: JobSettings, basis: Basis, tmp_path: Path
) -> None:
    one, another = world_people(settings, 2, 6)
    assert write_people(tmp_path / "x", base, settings, basis, [one, [], another]).count == 1
    with pytest.raises(InputError, match="two at least"):
        write_people(tmp_path / "x", base, settings, basis, [one, []])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("public") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(public, "world_people", few)
        run_locally(folder, small())
    return folder


def test_a_run_releases_the_prior_that_its_file_tells(run: Path, base: BaseModel, basis: Basis) -> None:
    scatter = Scatter.from_bytes((run / PUBLIC_PEOPLE).read_bytes(), basis.digest, basis.numbers)
    released = read_release(run / FILE_NAME).people
    assert released is not None
    assert released.to_bytes() == released_people(basis, small(), scatter).to_bytes()
    assert scatter.count == 3


def test_clients_are_asked_for_no_more_than_without_it(run: Path, tmp_path: Path) -> None:
    plain = small(**{"people-prior": False, "prior-source": "updates"})
    run_locally(tmp_path / "run", plain)
    assert read_release(run / FILE_NAME).packed == read_release(tmp_path / "run" / FILE_NAME).packed
    for name in ("train", "status"):
        sent, plainly = (Ledger(f / "ledger" / f"{name}.jsonl").entries() for f in (run, tmp_path / "run"))
        assert sent == plainly
    assert not list((run / "checkpoints").rglob("scatter-*"))


def test_a_resumed_run_fits_nobody_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_release(run / FILE_NAME).packed
    (run / FILE_NAME).unlink()
    monkeypatch.setattr(public, "write_people", lambda *_: pytest.fail("fitted again"))
    Study(LocalGrid(run, prepare(run, small())), small(), run, lambda event, values: None).run()
    assert read_release(run / FILE_NAME).packed == before


def test_a_file_of_the_command_serves_a_run(tmp_path: Path, run: Path) -> None:
    out = tmp_path / "people.scatter"
    given = [f"--set={key}={value}" for key, value in IN_A_BASIS.items()]
    told = CliRunner().invoke(app, ["prior", str(out), "--people", "4", "--items", "6", *given])
    assert told.exit_code == 0, told.output
    assert "how 4 people differ in" in told.output
    run_locally(tmp_path / "run", small(**{"prior-file": str(out)}))
    ours, theirs = (read_release(folder / FILE_NAME).people for folder in (run, tmp_path / "run"))
    assert ours is not None
    assert theirs is not None
    assert ours.prior is not None
    assert theirs.prior is not None
    torch.testing.assert_close(theirs.prior.deviations, ours.prior.deviations, rtol=1e-2, atol=1e-4)


def test_the_others_of_a_data_set_can_be_the_public_people(run: Path) -> None:
    people = people_of_data(run / "world", small(), 2, 5)
    assert [len(pairs) for pairs in people] == [5, 5]


def test_without_a_basis_there_is_nothing_to_differ_in(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["prior", str(tmp_path / "x"), "--set", "update-basis=none"])
    assert isinstance(told.exception, InputError)
    assert "people differ in a basis" in str(told.exception)
    assert not (tmp_path / "x").exists()
