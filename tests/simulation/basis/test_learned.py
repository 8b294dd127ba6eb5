"""A basis is learned from public people: what moves, what it is exact up to, stops, and who may name it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.simulation.small_run import run_locally, small_settings
from typer.testing import CliRunner

from fedperfit.cloud.job.basis import BASIS, read_basis, settings_basis
from fedperfit.cloud.job.people import PUBLIC_PEOPLE, released_people
from fedperfit.cloud.job.settings import JobSettings
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.paths.plain import plain_losses
from fedperfit.edge.engine.slab import CoordinateSlab, Stack
from fedperfit.edge.engine.step import step_losses
from fedperfit.protocol.model.base_model import BaseModel, load
from fedperfit.protocol.people.scatter import Scatter
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Pair
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation.basis import learned
from fedperfit.simulation.basis.learned import learn_basis
from fedperfit.simulation.basis.people import world_people
from fedperfit.simulation.basis.public import make_basis
from fedperfit.simulation.cli import app
from fedperfit.simulation.run.settings import RunSettings

pytestmark = pytest.mark.slow  # for the model and the run that its tests share, whichever comes first
IN_A_BASIS = {
    "update-basis": "learned",
    "update-columns": 3,
    "personal-columns": 3,
    "personal-basis": "update",
}
PRIOR = {"people-prior": True, "prior-source": "public", "prior-floor": 0.3}


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def settings() -> JobSettings:
    return JobSettings.from_some(read_preset("quickstart") | IN_A_BASIS | PRIOR)


@pytest.fixture(scope="module")
def people(settings: JobSettings) -> list[list[Pair]]:
    return world_people(settings, 4, 12)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "_KEPT_EVERY", 2)


RIDGE = 100.0
"""So large that a few steps show it."""


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def slowly(
    base: BaseModel, start: Basis, people: list[list[Pair]], steps: int
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The same descent by Adam over all items of all people, each row run whole and by itself.

    Returns R and P, and everyone's R^T A P, (people, layers, d, d), which no change of axes alters.
    """
    layers, rank, columns = len(start.shape.layers), start.shape.rank, start.columns
    rows = [start.R.clone().requires_grad_(), start.P.clone().requires_grad_()]
    mean = [torch.zeros(layers, rank, columns), torch.zeros(layers, rank)]
    own = [torch.zeros(len(people), *tensor.shape) for tensor in mean]
    coordinates = [tensor.requires_grad_() for tensor in (*mean, *own)]
    adam = torch.optim.Adam([{"params": coordinates}, {"params": rows}])
    examples = [encode(base, pairs) for pairs in people]
    for step in range(steps):
        fall = 1 - 0.9 * step / steps
        adam.param_groups[0]["lr"], adam.param_groups[1]["lr"] = 1e-2 * fall, 2e-3 * fall
        total = torch.zeros(())
        for person, own_examples in enumerate(examples):
            A, b = (both + alone[person] for both, alone in zip(mean, own, strict=True))
            slab = CoordinateSlab(start.shape, *rows, A[None], b[None])
            (loss,) = plain_losses(base, Stack((), slab, False), [(0, each) for each in own_examples])
            ridge = sum(RIDGE / 2 * tensor[person].square().sum() for tensor in own)
            total = total + loss + ridge / len(own_examples)
        adam.zero_grad()
        total.backward()
        adam.step()
    R, P = (tensor.detach() for tensor in rows)
    return [R, P], R.mT @ own[0].detach() @ P


def projector(rows: torch.Tensor) -> torch.Tensor:
    axes = torch.linalg.qr(rows.double().mT).Q
    return axes @ axes.mT


def test_it_is_the_slow_descent_of_rows_and_everyones_coordinates(
    base: BaseModel,
    settings: JobSettings,
    people: list[list[Pair]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learned, "_BATCH", 12)  # all items of all people in each step, whatever is drawn
    monkeypatch.setattr(learned, "_RIDGE", RIDGE)
    start = make_basis(base, settings, [pair for pairs in people for pair in pairs])
    basis, numbers = learn_basis(tmp_path / "x", base, settings, people, steps=4)
    rows, maps = slowly(base, start, people, 4)
    for learned_rows, slow, first in zip((basis.R, basis.P), rows, (start.R, start.P), strict=True):
        moved = float((projector(slow) - projector(first)).norm())
        assert moved > 0.05
        assert float((projector(learned_rows) - projector(slow)).norm()) < 0.02 * moved
    for person, expected in zip(numbers, maps, strict=True):
        own = Coordinates.of(basis, person.float())
        torch.testing.assert_close(basis.R.mT @ own.A @ basis.P, expected, rtol=0.05, atol=1e-4)


def test_rows_that_move_fit_people_better_than_rows_that_stay(
    base: BaseModel,
    settings: JobSettings,
    people: list[list[Pair]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses: dict[float, list[float]] = {0.0: [], 2e-3: []}
    for rate, told in losses.items():

        def recorded(*given: Any, told: list[float] = told) -> torch.Tensor:
            each = step_losses(*given)
            told.append(float(each.detach().mean()))
            return each

        monkeypatch.setattr(learned, "step_losses", recorded)
        monkeypatch.setattr(learned, "_ROW_RATE", rate)
        learn_basis(tmp_path / f"{rate}", base, settings, people, steps=12)
    still, moving = (sum(told[-3:]) / 3 for told in losses.values())
    assert moving < 0.9 * still < losses[0.0][0]


def test_stopped_it_goes_on_to_the_same_basis_and_from_other_people_anew(
    base: BaseModel, settings: JobSettings, people: list[list[Pair]], tmp_path: Path
) -> None:
    def learn(name: str, people: list[list[Pair]], killed_after: int = 99) -> tuple[bytes, torch.Tensor]:
        def on_step(done: int, steps: int) -> None:
            counts.append(done)
            if done >= killed_after:
                raise Killed

        basis, numbers = learn_basis(tmp_path / name, base, settings, people, on_step, steps=5)
        return basis.to_bytes(), numbers

    counts: list[int] = []
    people = [pairs[:4] for pairs in people[:3]]
    whole, numbers = learn("whole", people)
    with pytest.raises(Killed):
        learn("x", people, killed_after=2)
    again, same = learn("x", people)
    assert again == whole
    assert torch.equal(same, numbers)
    assert counts == [0, 2, 4, 5, 0, 2, 2, 4, 5]
    with pytest.raises(Killed):
        learn("y", people, killed_after=4)
    assert learn("y", people[1:])[0] == learn("z", people[1:])[0] != whole
    (tmp_path / "x").write_bytes(b"half written")
    assert learn("x", people)[0] == whole


def test_people_without_items_teach_nothing_and_one_is_too_few(
    base: BaseModel, settings: JobSettings, people: list[list[Pair]], tmp_path: Path
) -> None:
    assert len(learn_basis(tmp_path / "x", base, settings, [people[0], [], people[1]], steps=1)[1]) == 2
    with pytest.raises(InputError, match="two people at least"):
        learn_basis(tmp_path / "x", base, settings, [people[0], []])


def test_numbers_that_are_not_finite_are_told(
    base: BaseModel,
    settings: JobSettings,
    people: list[list[Pair]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learned, "_RATE", float("inf"))
    with pytest.raises(InputError, match="not finite"):
        learn_basis(tmp_path / "x", base, settings, people, steps=3)


def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PEOPLE", 4), ("ITEMS", 6)):
        monkeypatch.setattr(learned, name, value)
    learn = learn_basis

    def shortly(*given: Any, **named: Any) -> Any:
        return learn(*given, **named, steps=3)

    monkeypatch.setattr(learned, "learn_basis", shortly)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned") / "run"
    with pytest.MonkeyPatch.context() as patch:
        few(patch)
        run_locally(folder, small())
    return folder


def small(**changes: object) -> RunSettings:
    return small_settings(history_lengths=[4], collective_sizes=[], **IN_A_BASIS | PRIOR | changes)


def test_a_run_on_the_world_learns_it_and_releases_how_its_people_differ(run: Path) -> None:
    basis = read_basis(run / BASIS)
    scatter = Scatter.from_bytes((run / PUBLIC_PEOPLE).read_bytes(), basis.digest, basis.numbers)
    released = read_release(run / FILE_NAME).people
    assert released is not None
    assert released.to_bytes() == released_people(basis, small(), scatter).to_bytes()
    assert scatter.count == 3
    assert not list(run.glob("*.part"))


def test_a_resumed_run_learns_nothing_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_release(run / FILE_NAME).packed
    (run / FILE_NAME).unlink()
    monkeypatch.setattr(learned, "learn_basis", lambda *_: pytest.fail("learned again"))
    run_locally(run, small())
    assert read_release(run / FILE_NAME).packed == before


def test_too_many_numbers_for_the_prior_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "learn_basis", lambda *_: pytest.fail("learned"))
    with pytest.raises(InputError, match="numbers, at most 2048"):
        run_locally(tmp_path / "run", small(**{"update-columns": 200}))


def test_the_command_learns_of_a_data_set_and_its_files_serve_a_run(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch)
    out = tmp_path / "my.basis"
    given = [f"--set={key}={value}" for key, value in IN_A_BASIS.items()]
    told = CliRunner().invoke(app, ["basis", str(out), "--data", str(run / "world"), "--people", "3", *given])
    assert told.exit_code == 0, told.output
    said = told.output.replace("\n", "")
    assert "learned from 3 people" in said
    assert "3 of 3 steps learned" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.basis", "my.basis.people"]
    named = small(**{"basis-file": str(out), "prior-file": f"{out}.people"})
    run_locally(tmp_path / "run", named)
    assert (tmp_path / "run" / BASIS).read_bytes() == out.read_bytes()
    assert (tmp_path / "run" / PUBLIC_PEOPLE).read_bytes() == (tmp_path / "my.basis.people").read_bytes()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--set", "update-basis=learned", "--items", __file__], "name a data set by --data"),
        (["--data", "."], "only for a basis that is learned"),
        (["--set", "update-basis=learned", "--data", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_what_does_not_go_together_is_refused_and_nothing_written(
    tmp_path: Path, given: list[str], reason: str
) -> None:
    told = CliRunner().invoke(app, ["basis", str(tmp_path / "x"), *given])
    assert isinstance(told.exception, InputError)
    assert reason in str(told.exception)
    assert not list(tmp_path.iterdir())


def test_where_no_population_is_a_file_is_expected(base: BaseModel) -> None:
    settings = JobSettings.from_some(read_preset("quickstart") | IN_A_BASIS)
    with pytest.raises(InputError, match="update-basis=learned: expected basis-file"):
        settings_basis(settings, base.card)
