"""Whether rounds under differential privacy keep their promise, asked of the mechanism itself by canaries."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import torch

from fedperfit.cloud.privacy.ledger import PrivacyLedger, write_secret
from fedperfit.cloud.privacy.rounds import SECRET, PrivateRounds
from fedperfit.cloud.privacy.settings import PrivacySettings
from fedperfit.protocol.system.seeds import seed_from
from fedperfit.simulation.audit.attack import Attack, Role, Trials
from fedperfit.simulation.audit.epsilon import CONFIDENCE, epsilon_bound, epsilon_estimate
from fedperfit.simulation.cluster.scratch import scratch

PROMISES = (1.0, 2.0, 4.0, 8.0)
"""Epsilons that are promised."""
MANY, LONE = "many canaries", "one canary among known clients"
_CANARIES = 1024
"""Canaries of a run, and numbers of their votes: a power of two."""
_RUNS = 8
_ASKED = 4096
"""Clients that a round of many canaries asks; those that are no canaries do not reply."""
_LONE_RUNS, _LONE_TRIALS, _LONE_ASKED, _LONE_NUMBERS = 4, 250, 1024, 16
_GUESSED = 0.1
"""Share of the canaries that the bound guesses."""
_SURE = 1 - (1 - CONFIDENCE) / (4 * len(PROMISES))
"""Confidence of the two bounds of each of the two experiments with a promise, one of which must lie above it:
of twenty audits in which all promises are kept, one at most says of any that it is broken."""


class Rounds:
    """The rounds of a cloud under a promise, with a secret that an experiment can repeat."""

    def __init__(self, epsilon: float, delta: float, codec: str, rounds: int, asked: int, label: str) -> None:
        """Set the rounds up and charge them, as a run does.

        Args:
            epsilon: Epsilon of the promise.
            delta: Delta of the promise.
            codec: Encoding of the updates.
            rounds: Rounds of the run.
            asked: Clients asked in each.
            label: Names the draw of the noise.
        """
        self.rounds, self.asked, self.votes = rounds, asked, codec == "sign"
        settings = PrivacySettings(target_epsilon=epsilon, target_delta=delta)
        with scratch() as place:
            write_secret(place / SECRET, hashlib.sha256(label.encode()).digest())
            self._private = PrivateRounds(settings, PrivacyLedger(place), place)
            self._private.begin(codec, asked, asked, rounds, 0)
            for number in range(1, rounds + 1):
                self._private.charge(number)

    def run(self, updates: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Return the sum of all rounds' changes, (n,), in units in which one client's are its votes.

        Args:
            updates: (replies, n) votes of those who reply, the same in each round.
            first: Rounds before these, so that none has the noise of another.
        """
        numbers = range(first + 1, first + self.rounds + 1)
        changes = [self._private.change(number, updates) for number in numbers]
        return torch.stack(changes).sum(dim=0) * (self.asked / self._private.mechanism.size)


def orthogonal_votes(count: int, seed: int) -> torch.Tensor:
    """Return orthogonal votes (count, count): a Hadamard matrix whose columns have drawn signs."""
    rows = torch.ones(1, 1, dtype=torch.double)
    while len(rows) < count:
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
    signs = torch.randint(0, 2, (count,), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return rows * signs


def many(rounds: Rounds, seed: int, canaries: int = _CANARIES) -> tuple[list[float], list[bool]]:
    """Let canaries take part by coins; return how much of each is in what comes out, and who took part."""
    votes = orthogonal_votes(canaries, seed)
    coins = torch.randint(0, 2, (canaries,), generator=torch.Generator().manual_seed(seed + 1)).bool()
    scores = votes @ rounds.run(votes[coins])
    return scores.tolist(), coins.tolist()


def lone(rounds: Rounds, seed: int, trials: int) -> tuple[list[float], list[bool]]:
    """Let one canary take part by coins, against known clients who mostly vote the other way.

    Whether it did must not show in what the sum is divided by either.

    Args:
        rounds: The rounds.
        seed: Seed of canary and coins.
        trials: Number of runs.
    """
    rng = random.Random(seed)
    canary = torch.tensor([rng.choice((-1.0, 1.0)) for _ in range(_LONE_NUMBERS)], dtype=torch.double)
    known = rounds.asked // 4
    crowd = torch.stack([canary if n % 4 == 0 else -canary for n in range(known)])
    scores, truths = [], []
    for trial in range(trials):
        there = rng.random() < 0.5
        updates = torch.cat([crowd, canary[None]]) if there else crowd
        scores.append(float(canary @ rounds.run(updates, first=trial * rounds.rounds)))
        truths.append(there)
    return scores, truths


class DpMechanism(Attack):
    """The cloud's own mechanism, calibrated and charged as in a run."""

    name = "dp-mechanism"
    title = "Does differential privacy keep its promise?"
    meaning = (
        "Invented clients join a federation under a promise or stay away, by the toss of a coin; somebody "
        "who knows everything else guesses which. Nobody may guess better than the promised epsilon allows."
    )
    across = True

    def conditions(self) -> dict[str, Role]:
        """Name the promises, each by many canaries and by one, and the controls."""
        promises = {
            f"epsilon {promise:g}, {kind}": Role.ATTACK for promise in PROMISES for kind in (MANY, LONE)
        }
        return promises | {"no noise to speak of": Role.POSITIVE, "coins that nobody acts upon": Role.NULL}

    def subjects(self) -> list[str]:
        """Name the runs of every promise."""
        return [f"{promise:g}/{run}" for promise in PROMISES for run in range(_RUNS)]

    def trials(self, subject: str) -> list[Trials]:
        """Run a federation of canaries."""
        promise, run = float(subject.split("/")[0]), int(subject.split("/")[1])
        rounds = self._rounds(promise, _ASKED, f"many/{subject}")
        scores, truths = many(rounds, seed=self._seed(f"many/{subject}"))
        found = [Trials(f"epsilon {promise:g}, {MANY}", f"run {run}", scores, truths)]
        if run < _LONE_RUNS:
            rounds = self._rounds(promise, _LONE_ASKED, f"lone/{subject}")
            alone = lone(rounds, seed=self._seed(f"lone/{subject}"), trials=_LONE_TRIALS)
            found.append(Trials(f"epsilon {promise:g}, {LONE}", f"run {run}", *alone))
        if promise == PROMISES[0]:
            bare = many(self._rounds(1e4, _ASKED, f"bare/{subject}"), seed=self._seed(f"bare/{subject}"))
            found.append(Trials("no noise to speak of", f"run {run}", *bare))
            other = random.Random(self._seed(f"other/{run}")).choices((False, True), k=len(scores))
            found.append(Trials("coins that nobody acts upon", f"run {run}", scores, other))
        return found

    def beyond(self, condition: str, trials: Sequence[Trials]) -> dict[str, Any]:
        """Estimate and bound epsilon."""
        delta = self.ground.settings.target_delta
        scores = [score for each in trials for score in each.scores]
        truths = [truth for each in trials for truth in each.truths]
        bound = epsilon_bound(scores, truths, delta, _GUESSED)
        named = condition.startswith("epsilon")
        about: dict[str, Any] = {}
        if named:
            promise = float(condition.split()[1].strip(","))
            surely = max(
                epsilon_estimate(scores, truths, delta, _SURE)["low"],
                epsilon_bound(scores, truths, delta, _GUESSED, _SURE),
            )
            about = {"promise": promise, "surely-above": surely}
        return about | {
            "epsilon": epsilon_estimate(scores, truths, delta),
            "epsilon-bound": {"value": bound, "low": bound, "high": bound},
        }

    def _seed(self, label: str) -> int:
        return seed_from(f"{self.ground.settings.seed}/{label}")

    def _rounds(self, epsilon: float, asked: int, label: str) -> Rounds:
        settings = self.ground.settings
        delta, codec = settings.target_delta, settings.transport_dtype
        return Rounds(epsilon, delta, codec, settings.rounds, asked, f"{settings.seed}/{label}")
