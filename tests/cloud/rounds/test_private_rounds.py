"""Rounds under a promise, over scripted clients: noise, charges, kills, and what is refused."""

from pathlib import Path

import pytest
import torch
from tests.cloud.rounds.test_coordinate_rounds import BASIS, CLIENTS, Edges, drawn, federation

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.cloud.privacy.accountant import Charge, epsilon_of, least_multiplier
from fedperfit.cloud.privacy.ledger import BudgetSpent, PrivacyLedger
from fedperfit.cloud.privacy.rounds import PrivateRounds
from fedperfit.cloud.privacy.settings import PrivacySettings
from fedperfit.cloud.rounds.federation import Federation
from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.system.errors import InputError

DELTA = 1e-5


def private(folder: Path, edges: Edges, rounds: int = 2, **promise: object) -> Federation:
    settings = PrivacySettings(**{"target_epsilon": 2.0, "target_delta": DELTA, **promise})
    privacy = PrivateRounds(settings, PrivacyLedger(folder), folder / "checkpoints")
    made = federation(folder, edges, rounds=rounds, dtype="sign")
    return Federation(
        exchange=made.exchange,
        checkpoints=made.checkpoints,
        ledger=made.ledger,
        header=made.header,
        settings=made.settings,
        training=made.training,
        basis=BASIS,
        privacy=privacy,
    )


def numbers(job: Federation) -> torch.Tensor:
    checkpoint = job.checkpoints.latest()
    assert checkpoint is not None
    return torch.tensor(checkpoint.numbers)


def train(job: Federation) -> list[RoundReport]:
    reports: list[RoundReport] = []
    job.train(CLIENTS.values(), reports.append)
    return reports


def test_a_round_is_the_mean_of_votes_and_noise_of_the_least_scale(tmp_path: Path) -> None:
    found = []
    for number in range(12):
        job = private(tmp_path / str(number), Edges(), rounds=1)
        train(job)
        assert job.privacy is not None
        votes = torch.stack([drawn(name, 1).sign() for name in CLIENTS.values()])
        found.append(numbers(job).double() - 0.02 * votes.double().mean(dim=0))
    z = least_multiplier(2.0, DELTA, 1)
    inner = torch.cat(found)
    expected = 0.02 * z * BASIS.numbers**0.5 / len(CLIENTS)
    clamped = torch.randn(100_000, dtype=torch.double).mul(expected)
    assert z > 1
    assert float(inner.abs().max()) <= 0.04 + 1e-9, "a step of at most +-.02, off by at most .04"
    assert float(inner.std()) > 0.4 * float(clamped.clamp(-0.02, 0.02).std())


def test_the_promise_is_kept_to_the_last_round_and_no_further(tmp_path: Path) -> None:
    job = private(tmp_path, Edges())
    train(job)
    assert job.privacy is not None
    spent = job.privacy.epsilon()
    assert 1.999 < spent <= 2.0
    again = private(tmp_path / "second", Edges())
    assert again.privacy is not None
    again.privacy.ledger = PrivacyLedger(tmp_path)
    with pytest.raises(BudgetSpent, match="above target-epsilon=2"):
        train(again)


def test_nobody_replying_changes_no_noise_and_no_charge(tmp_path: Path) -> None:
    def silent(client: str, message: object, values: object) -> None:
        return None

    job = private(tmp_path, Edges(silent), rounds=1)
    job.settings = job.settings.replace(deadline_seconds=0.3)
    (report,) = train(job)
    assert report.skipped
    assert float(numbers(job).abs().max()) > 0
    assert job.privacy is not None
    assert job.privacy.epsilon() > 1.99


def test_what_clients_share_beside_votes_is_not_told(tmp_path: Path) -> None:
    for report in train(private(tmp_path, Edges())):
        assert (report.loss, report.items) == (None, 0)


def test_killed_between_noise_and_checkpoint_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = private(tmp_path, Edges())
    train(whole)
    expected, charged = numbers(whole), whole.privacy.ledger.lines()
    last = whole.checkpoints.path(2)
    last.unlink()
    lines = whole.privacy.ledger.path.read_text().splitlines(keepends=True)
    whole.privacy.ledger.path.write_text("".join(lines[:-1]))  # the end was not noted yet
    resumed = private(tmp_path, Edges())
    train(resumed)
    assert torch.equal(numbers(resumed), expected)
    assert resumed.privacy.ledger.lines() == charged


def test_a_finished_run_cannot_be_set_back_for_another_answer(tmp_path: Path) -> None:
    job = private(tmp_path, Edges())
    train(job)
    job.checkpoints.path(2).unlink()
    with pytest.raises(InputError, match="set back"):
        train(private(tmp_path, Edges()))


def test_other_replies_get_other_noise(tmp_path: Path) -> None:
    """Two sums under the same noise would tell their difference."""
    job = private(tmp_path, Edges(), rounds=1)
    train(job)
    votes = torch.stack([drawn(name, 1) for name in CLIENTS.values()])
    one, two = job.privacy.change(1, votes), job.privacy.change(1, votes[:-1])
    difference = (one - two) * len(CLIENTS) / 0.02
    assert float((difference - votes[-1].sign()).abs().max()) > 1


def test_coins_decide_who_is_asked(tmp_path: Path) -> None:
    job = private(tmp_path, Edges(), client_sampling="poisson")
    job.settings = job.settings.replace(clients_per_round=2)
    reports = train(job)
    asked = [set(report.asked) for report in reports]
    assert all(names <= set(CLIENTS.values()) for names in asked)
    assert job.privacy.mechanism.multiplier < least_multiplier(2.0, DELTA, 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"update-basis": "none", "transport-dtype": "float32"}, "update-basis=none"),
        ({"update-basis": "federated"}, "update-basis=federated"),
        ({"aggregation": "median"}, "aggregation=median"),
        ({"over-selection": 1.5}, "over-selection=1.5"),
        ({"directions": True}, "directions"),
        ({"layers": "auto"}, "auto"),
    ],
)
def test_what_would_tell_of_clients_unnoised_is_refused(changes: dict[str, object], reason: str) -> None:
    values = {"target-epsilon": 2.0, "update-basis": "random", "transport-dtype": "sign"}
    preset = read_preset("quickstart") | values
    JobSettings.from_some(preset)
    with pytest.raises(InputError, match=reason):
        JobSettings.from_some(preset | changes)


def test_a_planted_fault_shows_in_the_total() -> None:
    """Rounds forgotten, noise halved: the same accountant tells them apart."""
    z = least_multiplier(2.0, DELTA, 4)
    assert epsilon_of([Charge(z)] * 4, DELTA) == pytest.approx(2.0, rel=1e-6)
    assert epsilon_of([Charge(z / 2)] * 4, DELTA) > 4
    assert epsilon_of([Charge(z)], DELTA) < 1
