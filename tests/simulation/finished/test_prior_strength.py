"""The strength of a prior is chosen on the others, by items that no fit has seen."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.simulation.small_run import run_locally, small_settings
from typer.testing import CliRunner

from fedperfit.edge.agent.history import read_history
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.paths.plain import plain_losses
from fedperfit.edge.engine.people.whitened import Whitened, fit_under_prior
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.edge.fitting.form import personal_shift
from fedperfit.protocol.model.base_model import load
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.simulation.cli import app
from fedperfit.simulation.finished.prior_strength import FILE, try_strengths


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    settings = small_settings(
        world_history=24,
        update_basis="random",
        personal_basis="update",
        people_prior=True,
        history_lengths=[],
        collective_sizes=[],
        prior_floor=1.0,
    )
    run_locally(folder, settings)
    return folder


def test_a_trial_is_the_loss_of_the_latest_quarter_after_a_fit_on_items_before_it(run: Path) -> None:
    (trial,) = try_strengths(run, [0.3], [4], 2)
    base = load("embedded", device="cpu", dtype="float32")
    release = OpenedRelease.of((run / FILE_NAME).read_bytes(), base)
    assert release.people is not None
    assert release.people.prior is not None
    people = replace(release.people, prior=replace(release.people.prior, strength=0.3))
    frozen, losses, bare = release.frozen(base), [], []
    for number in (0, 1):
        other = read_history(run / "clients" / str(number))
        assert other.name.startswith("others")
        examples = encode(base, other.pairs("lamp", 0))
        held = round(len(examples) / 4)
        one = Whitened.start(people)
        fit_under_prior([one], [examples[-held - 4 : -held]], ItemCache(base), frozen=[frozen])
        own = Stack([frozen], Slab.of([personal_shift(one)], base.device), False)
        rows = [(0, example) for example in examples[-held:]]
        losses.append(float(plain_losses(base, own, rows)))
        bare.append(float(plain_losses(base, Stack([frozen], None, False), rows)))
    assert trial.people == 2
    assert trial.loss == pytest.approx(sum(losses) / len(losses), rel=1e-3)
    assert trial.without == pytest.approx(sum(bare) / len(bare), rel=1e-3)


def test_the_lowest_loss_over_all_lengths_is_chosen_and_kept(run: Path) -> None:
    told = CliRunner().invoke(
        app, ["tune-prior", str(run), "--strengths", "0.02,1,1000000", "--items", "2,6"]
    )
    assert told.exit_code == 0, told.output
    kept = read_json(run / FILE)
    assert len(kept["trials"]) == 6
    total = {s: sum(t["loss"] for t in kept["trials"] if t["strength"] == s) for s in (0.02, 1, 1e6)}
    assert kept["strength"] == min(total, key=total.__getitem__)
    edge = {0.02: "; none lower was tried", 1e6: "; none higher was tried"}.get(kept["strength"], "")
    assert f"prior-strength={kept['strength']:g}{edge}\n" in told.output
    (strongest,) = [t for t in kept["trials"] if (t["strength"], t["items"]) == (1e6, 6)]
    assert strongest["loss"] == pytest.approx(strongest["without"], rel=1e-3), (
        "nobody differs from the collective shift"
    )


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--strengths", "0"], "expected positive numbers"),
        (["--strengths", "x"], "expected positive numbers"),
        (["--items", "23"], "none of the others has as many"),
    ],
)
def test_what_cannot_be_tried_is_one_line(run: Path, given: list[str], reason: str) -> None:
    told = CliRunner().invoke(app, ["tune-prior", str(run), *given])
    assert isinstance(told.exception, InputError)
    assert reason in str(told.exception)


def test_a_run_without_a_prior_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run"):
        list(try_strengths(tmp_path, [1.0], [2], 2))


def test_a_run_whose_clients_are_gone_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    with pytest.raises(InputError, match="no finished run"):
        list(try_strengths(tmp_path, [1.0], [2], 2))
