"""The audit of the mechanism finds what was promised, and every fault that is planted in it."""

import math
from collections.abc import Callable

import pytest
import torch

from fedperfit.cloud.privacy import ledger, mechanism, rounds
from fedperfit.cloud.privacy.ledger import BudgetSpent
from fedperfit.cloud.privacy.mechanism import Mechanism
from fedperfit.simulation.audit.attacks.dp_mechanism import Rounds, lone, many, orthogonal_votes
from fedperfit.simulation.audit.epsilon import epsilon_bound, epsilon_estimate, epsilon_of_mu, mu_bound

DELTA, ROUNDS = 1e-5, 4
Scores = tuple[list[float], list[bool]]


def of_many(promise: float, codec: str = "sign", runs: int = 4) -> Scores:
    scores, truths = [], []
    for run in range(runs):
        told = many(Rounds(promise, DELTA, codec, ROUNDS, 4096, f"{promise}/{run}"), seed=10 * run)
        scores += told[0]
        truths += told[1]
    return scores, truths


def of_one(promise: float, trials: int = 600) -> Scores:
    return lone(Rounds(promise, DELTA, "sign", ROUNDS, 1024, f"lone/{promise}"), seed=1, trials=trials)


@pytest.mark.parametrize("promise", [1.0, 2.0, 4.0, 8.0])
def test_estimate_and_bound_agree_with_the_accountant(promise: float) -> None:
    told = of_many(promise)
    assert epsilon_estimate(*told, DELTA)["value"] == pytest.approx(promise, rel=0.25)
    assert promise / 3 < epsilon_bound(*told, DELTA, 0.1) < promise


def test_clipped_updates_tell_as_much_as_votes() -> None:
    assert epsilon_estimate(*of_many(4.0, "float32"), DELTA)["value"] == pytest.approx(4.0, rel=0.25)


def test_one_canary_among_known_clients_tells_no_more() -> None:
    assert epsilon_estimate(*of_one(4.0), DELTA)["low"] < 4.0


def calibrate_for_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    real = rounds.least_multiplier
    monkeypatch.setattr(rounds, "least_multiplier", lambda epsilon, delta, *_: real(epsilon, delta, 1))


def forget_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    calibrate_for_one_round(monkeypatch)
    monkeypatch.setattr(ledger, "epsilon_of", lambda charges, delta: 0.0)


def halve_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    real = mechanism.normal
    monkeypatch.setattr(mechanism, "normal", lambda *arguments: real(*arguments) / 2)


def weigh_four_times(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Mechanism.bounded
    monkeypatch.setattr(Mechanism, "bounded", lambda self, updates: 4 * real(self, updates))


def divide_by_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Mechanism.change
    monkeypatch.setattr(
        Mechanism,
        "change",
        lambda self, updates, clients, *rest: real(self, updates, len(updates), *rest),
    )


@pytest.mark.parametrize(
    ("fault", "attack"),
    [
        (forget_the_root, of_many),
        (halve_the_noise, of_many),
        (weigh_four_times, of_many),
        (divide_by_replies, of_one),
    ],
)
def test_a_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
    attack: Callable[[float], Scores],
) -> None:
    fault(monkeypatch)
    told = attack(4.0)
    assert epsilon_estimate(*told, DELTA)["low"] > 4.0
    if attack is of_many:
        assert epsilon_bound(*told, DELTA, 0.1) > 4.0


def test_the_ledger_finds_a_forgotten_root_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calibrate_for_one_round(monkeypatch)
    with pytest.raises(BudgetSpent):
        of_many(4.0, runs=1)


def test_canaries_are_orthogonal() -> None:
    votes = orthogonal_votes(64, seed=3)
    assert torch.equal(votes @ votes.T, 64 * torch.eye(64, dtype=torch.double))


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
def test_the_bound_lies_below_what_a_gaussian_has(mu: float) -> None:
    """Canaries of a known Gaussian, guessed by thresholds."""
    for seed in range(5):
        draw = torch.Generator().manual_seed(seed)
        truths = torch.randint(0, 2, (4000,), generator=draw).bool()
        scores = torch.randn(4000, generator=draw) + mu * truths
        bound = epsilon_bound(scores.tolist(), truths.tolist(), DELTA, 0.2)
        assert 0 < bound < epsilon_of_mu(mu, DELTA)


def test_guessing_bounds_nothing() -> None:
    assert mu_bound(1000, 200, 100) == 0.0
    assert mu_bound(1000, 200, 0) == 0.0
    assert mu_bound(1000, 200, 200) > 1.5


def test_more_right_guesses_bound_more() -> None:
    bounds = [mu_bound(1000, 100, right) for right in range(50, 101, 10)]
    assert bounds == sorted(bounds)
    assert math.isfinite(bounds[-1])
