"""Rounds under a promise: noise that is set before the first, charged before it is drawn."""

import hashlib
from pathlib import Path

import torch

from fedperfit.cloud.privacy.accountant import least_multiplier
from fedperfit.cloud.privacy.ledger import Line, PrivacyLedger, read_secret, write_secret
from fedperfit.cloud.privacy.mechanism import Mechanism
from fedperfit.cloud.privacy.settings import PrivacySettings
from fedperfit.protocol.privacy.noise import coins, new_secret
from fedperfit.protocol.system.errors import InputError

SECRET = "noise.secret"
"""File beside a run's checkpoints: what its noise is made of."""


class PrivateRounds:
    """The rounds of one training."""

    def __init__(self, settings: PrivacySettings, ledger: PrivacyLedger, folder: Path) -> None:
        """Set up the rounds.

        Args:
            settings: The promise, with a target above 0.
            ledger: Ledger of the federation, which other runs may have written to.
            folder: Folder of the checkpoints, where the secret is kept.
        """
        self.settings, self.ledger = settings, ledger
        self._path = folder / SECRET

    def begin(self, codec: str, clients: int, wanted: int, rounds: int, finished: int) -> None:
        """Fix noise and denominator, and see that the ledger fits the checkpoints.

        Args:
            codec: Encoding of the updates.
            clients: Clients of the federation.
            wanted: Clients that a round wants.
            rounds: Rounds of the run.
            finished: Those that are finished.

        Raises:
            InputError: If ledger and checkpoints do not fit, or the secret of a begun run is missing.
        """
        if not self._path.exists():
            if finished:
                raise InputError(f"{self._path}: missing, but rounds are finished")
            write_secret(self._path, new_secret())
        self._secret = read_secret(self._path)
        self._run = hashlib.sha256(b"run" + self._secret).hexdigest()
        self.ledger.check(self._run, finished)
        settings = self.settings
        self._wanted = wanted
        self._rate = wanted / clients if settings.client_sampling == "poisson" else 1.0
        multiplier = settings.noise_multiplier or least_multiplier(
            settings.target_epsilon, settings.target_delta, rounds, self._rate
        )
        votes = codec == "sign"
        size = settings.vote_step if votes else settings.clipping_norm
        self.mechanism = Mechanism(multiplier, votes, size)

    def asked(self, number: int, clients: list[str]) -> list[str] | None:
        """Return the clients that a round's coins fall for, sorted; None where all may take part."""
        if self._rate == 1:
            return None
        fallen = coins(self._secret, f"coins/{number}", len(clients), self._rate)
        return sorted(client for client, falls in zip(clients, fallen, strict=True) if falls)

    def change(self, number: int, updates: torch.Tensor) -> torch.Tensor:
        """Return the noised change of the coordinates that a round makes; it is charged already.

        The noise is that of these updates alone: two sums under one noise would tell their difference.

        Args:
            number: Round, counted from 1.
            updates: (replies, n) the clients' changes, in an order that does not depend on who replied first.

        Returns:
            (n,) float64.
        """
        return self.mechanism.change(updates, self._wanted, self._secret, _label(number, updates))

    def change_of_sum(self, number: int, total: torch.Tensor) -> torch.Tensor:
        """Return the noised change that a sum makes, where single updates are not seen; see `change`.

        Args:
            number: Round, counted from 1.
            total: (n,) sum of updates that the clients bounded.

        Returns:
            (n,) float64.
        """
        return self.mechanism.change_of_sum(total, self._wanted, self._secret, _label(number, total))

    def charge(self, number: int) -> None:
        """Charge a round, counted from 1, before anybody is asked; raises BudgetSpent."""
        settings = self.settings
        line = Line(self._run, number, self.mechanism.multiplier, self._rate)
        self.ledger.charge(line, settings.target_epsilon, settings.target_delta)

    def end(self, rounds: int) -> None:
        """Note that the last round is over, so that none can be run again."""
        settings = self.settings
        self.ledger.charge(Line.end(self._run, rounds), settings.target_epsilon, settings.target_delta)

    def epsilon(self) -> float:
        """Return what all rounds so far tell, those of other runs included."""
        return self.ledger.epsilon(self.settings.target_delta)


def _label(number: int, told: torch.Tensor) -> str:
    digest = hashlib.sha256(told.double().contiguous().numpy().tobytes()).hexdigest()
    return f"round/{number}/{digest}"
