"""How a federation is run: who is asked, how long it waits, what it lets in."""

import math
from dataclasses import dataclass

from fedperfit.cloud.rounds.robust import RULES
from fedperfit.protocol.shift.packing import DTYPES
from fedperfit.protocol.system.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FederationSettings:
    """One federation, from the first round to the last."""

    rounds: int
    """Rounds of stage 1."""
    clients_per_round: int = 0
    """Clients whose updates a round wants; 0 is all."""
    over_selection: float = 1.0
    """Ask this many times as many clients as the round wants, so that it need not wait for the slow."""
    goal: float = 1.0
    """Share of the clients wanted whose admitted updates close a round before its deadline."""
    min_updates: int = 1
    """With fewer admitted updates a round is skipped: the shift stays as it was."""
    deadline_seconds: float = 600.0
    """How long a round waits for replies."""
    max_norm: float = 100.0
    """Largest Frobenius norm of W - R, and of b, in an admitted update."""
    max_items: int = 1024
    """A client's weight in the mean is its number of items, at most this."""
    aggregation: str = "mean"
    """How updates become one: `mean`, or against liars `trimmed-mean`, `median`, `krum`, `multi-krum`."""
    assumed_malicious: float = 0.2
    """Share of the updates that may lie, which the rules against liars prepare for."""
    seed: int = 0
    """Of the identity start and of the sampling of clients."""
    dtype: str = "float32"
    """How a shift travels: `float32` or `bfloat16`."""

    def __post_init__(self) -> None:
        for name in ("rounds", "min_updates", "max_items"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("clients_per_round", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)}: must not be negative")
        for name in ("deadline_seconds", "max_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name}={value}: must be positive")
        if not (math.isfinite(self.over_selection) and self.over_selection >= 1):
            raise InputError(f"over_selection={self.over_selection}: must be at least 1")
        if not 0 < self.goal <= 1:
            raise InputError(f"goal={self.goal}: must be above 0 and at most 1")
        if self.aggregation not in RULES:
            raise InputError(f"aggregation={self.aggregation!r}: expected one of {', '.join(RULES)}")
        if not 0 <= self.assumed_malicious < 0.5:
            raise InputError(f"assumed_malicious={self.assumed_malicious}: must be in 0..0.5")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype={self.dtype!r}: expected one of {', '.join(DTYPES)}")
        if self.clients_per_round and self.min_updates > self.clients_per_round:
            raise InputError(
                f"min_updates={self.min_updates} exceeds clients_per_round={self.clients_per_round}"
            )

    def wanted(self, clients: int) -> int:
        """Updates a round wants when `clients` are there to be asked."""
        return min(self.clients_per_round or clients, clients)

    def asked(self, clients: int) -> int:
        """Clients asked for them; rounding keeps 10 x 1.1 at 11."""
        return min(math.ceil(round(self.wanted(clients) * self.over_selection, 6)), clients)

    def enough(self, clients: int) -> int:
        """Admitted updates that close a round early."""
        return max(1, math.ceil(round(self.wanted(clients) * self.goal, 6)))
