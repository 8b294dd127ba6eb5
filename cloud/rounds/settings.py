"""How a federation is run: who is asked, how long it waits, what it lets in."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.fields import Seed, TransportType
from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.system.errors import InputError

AggregationRule = Literal["mean", "trimmed-mean", "median", "krum", "multi-krum"]
"""How updates become one: `cloud.rounds.aggregation` has the mean, `cloud.rounds.robust` the others."""
Deadline = Annotated[
    float, Field(gt=0, description="Time a round waits for replies, at most."), Unit("seconds")
]


class RoundSettings(Settings):
    """The rounds of stage 1, as a user sets them."""

    rounds: Annotated[int, Field(ge=1), Unit("rounds")]
    """Rounds of collective training."""
    clients_per_round: Annotated[int, Field(ge=0), Unit("clients")] = 0
    """Clients whose updates a round wants, or all where there are fewer; 0 is all."""
    over_selection: Annotated[float, Field(ge=1), Unit("times as many")] = 1.0
    """Clients asked for each update wanted, so that a round need not wait for the slow."""
    buffer_size: Annotated[int, Field(ge=0), Unit("updates")] = 0
    """Updates with which a round ends while the other clients go on with their work (FedBuff), of which
    `clients-per-round` are at work at a time; 0: a round waits for those that it asked."""
    deadline_seconds: Deadline = 86_400.0
    aggregation: AggregationRule = "mean"
    """How updates become one: `mean`, or one of the rules that a minority of liars cannot lead far."""
    assumed_malicious: Annotated[float, Field(ge=0, lt=0.5), Unit("share")] = 0.2
    """Share of the updates that may lie, which the rules against liars prepare for."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _check_at_work(self) -> Self:
        if self.clients_per_round and self.buffer_size > self.clients_per_round:
            raise InputError(
                f"buffer-size={self.buffer_size} exceeds clients-per-round={self.clients_per_round}"
            )
        return self


class FederationSettings(RoundSettings):
    """One federation, from the first round to the last."""

    goal: Annotated[float, Field(gt=0, le=1), Unit("share")] = 1.0
    """Share of the clients wanted whose admitted updates close a round before its deadline."""
    min_updates: Annotated[int, Field(ge=1), Unit("updates")] = 1
    """Admitted updates without which a round is skipped: the shift stays as it was."""
    max_norm: Annotated[float, Field(gt=0), Unit("Frobenius norm")] = 100.0
    """Largest norm of W - R, and of b, in an admitted update."""
    max_items: Annotated[int, Field(ge=1), Unit("items")] = 1024
    """Largest weight of a client in the mean, which is its number of items."""
    dtype: TransportType = "float32"

    @model_validator(mode="after")
    def _check_enough(self) -> Self:
        if self.clients_per_round and self.min_updates > self.clients_per_round:
            raise InputError(
                f"min-updates={self.min_updates} exceeds clients-per-round={self.clients_per_round}"
            )
        return self

    @property
    def deciding(self) -> dict[str, Any]:
        """Values that decide the result by name, as they were before there were asynchronous rounds."""
        return {name: value for name, value in vars(self).items() if name != "buffer_size" or value}

    def wanted(self, clients: int) -> int:
        """Updates a round wants when `clients` are there to be asked."""
        return min(self.clients_per_round or clients, clients)

    def asked(self, clients: int) -> int:
        """Clients asked for them; rounding keeps 10 x 1.1 at 11."""
        return min(math.ceil(round(self.wanted(clients) * self.over_selection, 6)), clients)

    def enough(self, clients: int) -> int:
        """Admitted updates that close a round early."""
        return max(1, math.ceil(round(self.wanted(clients) * self.goal, 6)))
