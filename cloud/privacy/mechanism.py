"""The mechanism: a mean over clients in which no single one can be told.

    votes (codec sign):   V = sum_i sign_i + N(0, (z sqrt(n))^2)     theta <- theta + s V / m, within +-s
    any other codec:      V = sum_i clip_C(d_i) + N(0, (z C)^2)      theta <- theta + V / m

A vote of n signs has norm sqrt(n) exactly, so nothing is clipped or tuned; s is the public setting
`vote-step`, since the clients' scales would tell of them. m is the number of clients asked, whoever
replies, and every client weighs the same. Sums and noise are whole multiples of a power of two, the same
for all data, so that no low bit of a sum tells what the noise hides (Mironov, 2012).
"""

import math
from dataclasses import dataclass

import torch

from fedperfit.protocol.privacy.noise import normal

_UNIT = 2.0**-20
"""What sums and noise are multiples of, in votes or in clipping norms."""


@dataclass(frozen=True)
class Mechanism:
    """One way to noise the sums of a run."""

    multiplier: float
    """Standard deviation of the noise, in sensitivities."""
    votes: bool
    """Whether updates are votes, of which only the signs count."""
    size: float
    """Votes: the step of a unanimous one. Else: the clipping norm."""

    def change(self, updates: torch.Tensor, clients: int, secret: bytes, label: str) -> torch.Tensor:
        """Return the change of the coordinates that a round makes.

        Args:
            updates: (replies, n) the clients' changes; there may be none.
            clients: Number of clients asked, which the sum is divided by.
            secret: Secret of the federation.
            label: Names the round; see `noise.normal`.

        Returns:
            (n,) float64.
        """
        return self.change_of_sum(self.bounded(updates).sum(dim=0), clients, secret, label)

    def change_of_sum(self, total: torch.Tensor, clients: int, secret: bytes, label: str) -> torch.Tensor:
        """Return the change that a sum of bounded updates makes.

        Args:
            total: (n,) float64 sum of what `bounded` makes, here or at the clients.
            clients: As in `change`.
            secret: As in `change`.
            label: As in `change`.

        Returns:
            (n,) float64.
        """
        sensitivity = math.sqrt(len(total)) if self.votes else 1.0
        noise = self.multiplier * sensitivity * normal(secret, label, len(total))
        mean = (total + torch.round(noise / _UNIT) * _UNIT) / clients
        return self.size * (mean.clamp(-1, 1) if self.votes else mean)

    def bounded(self, updates: torch.Tensor) -> torch.Tensor:
        """Bound what each client adds to the sum.

        Args:
            updates: (replies, n).

        Returns:
            (replies, n) float64: signs, or vectors of norm at most 1 in units of the clipping norm.
        """
        changes = updates.double()
        if self.votes:
            return changes.sign()
        norms = changes.norm(dim=1, keepdim=True)
        shares = changes / torch.clamp(norms, min=self.size)
        return torch.trunc(shares / _UNIT) * _UNIT  # towards zero: no norm grows
