"""The audit of the mechanism finds what was promised, and every fault that is planted in it."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fedperfit.cloud.privacy import ledger, mechanism, rounds
from fedperfit.cloud.privacy.ledger import BudgetSpent
from fedperfit.cloud.privacy.mechanism import Mechanism
from fedperfit.simulation.audit.attack import Role, Trials
from fedperfit.simulation.audit.attacks import dp_mechanism
from fedperfit.simulation.audit.attacks.dp_mechanism import DpMechanism, Rounds, lone, many, orthogonal_votes
from fedperfit.simulation.audit.epsilon import epsilon_bound, epsilon_estimate, epsilon_of_mu, mu_bound
from fedperfit.simulation.audit.page import finding

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


def judged(audit: int, apart: float) -> str:
    """What an audit finds where Gaussian noise lets canaries be `apart` times as far as promised."""
    attack = DpMechanism(SimpleNamespace(settings=SimpleNamespace(target_delta=DELTA)))  # type: ignore[arg-type]
    conditions: dict[str, dict[str, Any]] = {}
    controls = {Role.POSITIVE: {"low": 0.9}, Role.NULL: {"low": 0.49}}
    draw = torch.Generator().manual_seed(audit)
    for name, role in attack.conditions().items():
        conditions[name] = {"role": role.value, "auc": controls.get(role)}
        if role is Role.ATTACK:
            promise = float(name.split()[1].strip(","))
            truths = torch.randint(0, 2, (1000,), generator=draw).bool()
            scores = torch.randn(1000, generator=draw) + apart * mu_of_epsilon(promise) * truths
            conditions[name] |= attack.beyond(name, [Trials(name, "run", scores.tolist(), truths.tolist())])
    return finding({"conditions": conditions})


def mu_of_epsilon(epsilon: float) -> float:
    low, high = 0.0, 10.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon_of_mu(middle, DELTA) < epsilon else (low, middle)
    return low


def test_a_mechanism_that_keeps_all_promises_in_full_is_hardly_ever_blamed() -> None:
    blamed = [audit for audit in range(40) if judged(audit, 1.0).startswith("Breaks")]
    assert len(blamed) <= 4, "each of its sixteen bounds alone is wrong once in forty"


def test_one_that_tells_half_as_much_again_always_is() -> None:
    assert all(judged(audit, 1.5).startswith("Breaks") for audit in range(5))


def test_the_seed_draws_the_canaries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dp_mechanism, "_LONE_RUNS", 0)

    def drawn(seed: int) -> list[float]:
        settings = SimpleNamespace(seed=seed, target_delta=DELTA, transport_dtype="sign", rounds=1)
        return DpMechanism(SimpleNamespace(settings=settings)).trials("8/0")[0].scores  # type: ignore[arg-type]

    assert drawn(1) == drawn(1) != drawn(2)


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
