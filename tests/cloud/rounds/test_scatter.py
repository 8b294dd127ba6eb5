"""Sums of how updates differ, by round."""

from pathlib import Path

import pytest
import torch
from tests.cloud.rounds.test_coordinate_rounds import BASIS, CLIENTS, Edges, drawn, federation

from fedperfit.cloud.job.people import check_numbers, public_people, released_people
from fedperfit.cloud.job.settings import JobSettings
from fedperfit.cloud.rounds.scatter import UpdateScatter
from fedperfit.protocol.people.scatter import Scatter
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.system.errors import InputError

IN_A_BASIS = {"update-basis": "random", "personal-basis": "update"}


def settings(**values: object) -> JobSettings:
    given = IN_A_BASIS | {"update-columns": 3, "personal-columns": 3, "rounds": 2}
    return JobSettings.from_some(read_preset("quickstart") | given | values)


def recorded(folder: Path, rounds: int = 2) -> UpdateScatter:
    job = federation(folder, Edges(), rounds=rounds)
    scatter = job.form.scatter = UpdateScatter(folder / "checkpoints", BASIS)  # type: ignore[attr-defined]
    job.train(CLIENTS.values(), lambda report: None)
    return scatter


def test_the_rounds_of_a_federation_add_up(tmp_path: Path) -> None:
    told = recorded(tmp_path).total(2)
    expected = torch.zeros_like(told.total)
    for number in (1, 2):
        changes = torch.stack([drawn(name, number) for name in CLIENTS.values()]).double()
        centred = changes - changes.mean(0)
        lengths = centred.norm(dim=1)
        centred *= (lengths.median() / lengths).clamp(max=1)[:, None]
        expected += centred.T @ centred
    assert told.count == 2 * (len(CLIENTS) - 1)
    torch.testing.assert_close(told.total, expected, rtol=1e-4, atol=1e-6)


def test_a_round_run_again_counts_once_and_later_ones_not_yet(tmp_path: Path) -> None:
    scatter = UpdateScatter(tmp_path, BASIS)
    changes = torch.randn(4, BASIS.numbers)
    scatter.record(1, changes)
    once = scatter.total(2)
    scatter.record(1, changes)
    scatter.record(3, changes)
    again = scatter.total(2)
    assert torch.equal(once.total, again.total)
    assert again.count == 3


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    UpdateScatter(tmp_path, BASIS).record(1, torch.randn(3, 4))
    with pytest.raises(InputError, match="scatter-0001"):
        UpdateScatter(tmp_path, BASIS).total(1)


def test_people_have_the_columns_and_the_prior_that_settings_say(tmp_path: Path) -> None:
    scatter = recorded(tmp_path)
    people = released_people(BASIS, settings(**{"personal-columns": 2}), None)
    assert (people.basis.columns, people.prior) == (2, None)
    wanted = settings(**{"people-prior": True, "personal-numbers": 4, "prior-items": 7})
    prior = released_people(BASIS, wanted, scatter.total(2)).prior
    assert prior is not None
    assert (prior.items, prior.numbers, prior.strength) == (7, 4, wanted.prior_strength)
    assert prior.directions.shape[1] == BASIS.numbers


def test_too_many_coordinates_for_a_prior_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_numbers(BASIS.numbers)
    monkeypatch.setattr("fedperfit.cloud.job.people.MOST_NUMBERS", BASIS.numbers - 1)
    with pytest.raises(InputError, match=f"updates of {BASIS.numbers} numbers, at most"):
        check_numbers(BASIS.numbers)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"update-basis": "none"}, "only with an update-basis"),
        ({"personal-columns": 17}, "the update basis has 3"),
        ({"personal-basis": "none", "people-prior": True}, "only with a personal-basis"),
        ({"personal-numbers": 4}, "only with people-prior"),
        ({"prior-source": "public"}, "prior-source=public: only with people-prior"),
        ({"people-prior": True, "prior-file": "x"}, "prior-file=x: only with prior-source=public"),
        (
            {"people-prior": True, "prior-source": "public", "update-basis": "federated"},
            "the basis must be known before the run",
        ),
        (
            {"people-prior": True, "target-epsilon": 2.0, "transport-dtype": "sign"},
            "people-prior tells of clients unnoised",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        settings(**values)


def test_the_floor_suits_what_the_prior_is_made_of(tmp_path: Path) -> None:
    scatter = recorded(tmp_path).total(2)
    floors = {}
    for source in ("updates", "public"):
        for floor in (0.0, 2.0):
            wanted = settings(**{"people-prior": True, "prior-source": source, "prior-floor": floor})
            prior = released_people(BASIS, wanted, scatter).prior
            assert prior is not None
            floors[source, floor] = prior.floor
    assert floors["updates", 2.0] == floors["public", 2.0]
    ratio = floors["updates", 0.0] / floors["public", 0.0]
    assert ratio == pytest.approx((100 / 0.3) ** 0.5)


def test_public_people_say_nothing_of_clients_and_go_with_every_promise() -> None:
    public = {"people-prior": True, "prior-source": "public", "transport-dtype": "sign"}
    assert not settings(**public).compares_updates
    for promise in ({"target-epsilon": 2.0}, {"secure-aggregation": "committee"}, {"buffer-size": 2}):
        settings(**public, **promise)
        with pytest.raises(InputError, match="people-prior"):
            settings(**(public | {"prior-source": "updates"}), **promise)


def test_the_file_of_public_people_is_kept_from_the_first_time_on(tmp_path: Path) -> None:
    wanted = settings(**{"people-prior": True, "prior-source": "public", "prior-file": str(tmp_path / "x")})
    run = tmp_path / "run"
    with pytest.raises(InputError, match="x: No such file"):
        public_people(BASIS, wanted, run)
    told = Scatter.of(BASIS.digest, torch.randn(5, BASIS.numbers))
    (tmp_path / "x").write_bytes(told.to_bytes())
    first = public_people(BASIS, wanted, run)
    (tmp_path / "x").write_bytes(b"another")
    assert torch.equal(public_people(BASIS, wanted, run).total, first.total)
    assert first.count == 4
    with pytest.raises(InputError, match="prior-source=public: expected prior-file"):
        public_people(BASIS, settings(**{"people-prior": True, "prior-source": "public"}), tmp_path / "new")
