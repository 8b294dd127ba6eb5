"""Sums of how updates differ, by round."""

from pathlib import Path

import pytest
import torch
from tests.cloud.rounds.test_coordinate_rounds import BASIS, CLIENTS, Edges, drawn, federation

from fedperfit.cloud.job.people import check_numbers, released_people
from fedperfit.cloud.job.settings import JobSettings
from fedperfit.cloud.rounds.scatter import UpdateScatter
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.system.errors import InputError

IN_A_BASIS = {"update-basis": "random", "personal-basis": "update"}


def settings(**values: object) -> JobSettings:
    given = IN_A_BASIS | {"update-columns": 3, "personal-columns": 3, "rounds": 2}
    return JobSettings.from_some(read_preset("quickstart") | given | values)


def recorded(folder: Path, rounds: int = 2) -> UpdateScatter:
    job = federation(folder, Edges(), rounds=rounds)
    scatter = job.form.scatter = UpdateScatter(folder / "checkpoints")  # type: ignore[attr-defined]
    job.train(CLIENTS.values(), lambda report: None)
    return scatter


def test_the_rounds_of_a_federation_add_up(tmp_path: Path) -> None:
    total, count = recorded(tmp_path).total(BASIS.numbers, 2)
    expected = torch.zeros_like(total)
    for number in (1, 2):
        changes = torch.stack([drawn(name, number) for name in CLIENTS.values()]).double()
        centred = changes - changes.mean(0)
        lengths = centred.norm(dim=1)
        centred *= (lengths.median() / lengths).clamp(max=1)[:, None]
        expected += centred.T @ centred
    assert count == 2 * (len(CLIENTS) - 1)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-6)


def test_a_round_run_again_counts_once_and_later_ones_not_yet(tmp_path: Path) -> None:
    scatter = UpdateScatter(tmp_path)
    changes = torch.randn(4, 6)
    scatter.record(1, changes)
    once = scatter.total(6, 2)
    scatter.record(1, changes)
    scatter.record(3, changes)
    again = scatter.total(6, 2)
    assert torch.equal(once[0], again[0])
    assert again[1] == 3


def test_one_client_cannot_decide_how_people_differ(tmp_path: Path) -> None:
    scatter = UpdateScatter(tmp_path)
    changes = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    scatter.record(1, changes)
    honest, _ = scatter.total(6, 1)
    changes[0] = 1e6 * torch.eye(6)[0]
    scatter.record(1, changes)
    lied, _ = scatter.total(6, 1)
    assert float(lied.trace()) < 1e13
    assert float(honest.trace()) > 0


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    scatter = UpdateScatter(tmp_path)
    scatter.record(1, torch.randn(3, 4))
    with pytest.raises(InputError, match="scatter-0001"):
        scatter.total(5, 1)


def test_people_have_the_columns_and_the_prior_that_settings_say(tmp_path: Path) -> None:
    scatter = recorded(tmp_path)
    people = released_people(BASIS, settings(**{"personal-columns": 2}), scatter)
    assert (people.basis.columns, people.prior) == (2, None)
    wanted = settings(**{"people-prior": True, "personal-numbers": 4, "prior-items": 7})
    prior = released_people(BASIS, wanted, scatter).prior
    assert prior is not None
    assert (prior.items, prior.numbers, prior.strength) == (7, 4, wanted.prior_strength)
    assert prior.directions.shape[1] == BASIS.numbers


def test_too_many_coordinates_for_a_prior_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_numbers(BASIS)
    monkeypatch.setattr("fedperfit.cloud.job.people.MOST_NUMBERS", BASIS.numbers - 1)
    with pytest.raises(InputError, match=f"updates of {BASIS.numbers} numbers, at most"):
        check_numbers(BASIS)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"update-basis": "none"}, "only with an update-basis"),
        ({"personal-columns": 17}, "the update basis has 3"),
        ({"personal-basis": "none", "people-prior": True}, "only with a personal-basis"),
        ({"personal-numbers": 4}, "only with people-prior"),
        (
            {"people-prior": True, "target-epsilon": 2.0, "transport-dtype": "sign"},
            "people-prior tells of clients unnoised",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        settings(**values)
