"""The settings of differential privacy."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.system.errors import InputError


class PrivacySettings(Settings):
    """What the collective shift may tell of any one client."""

    target_epsilon: Annotated[float, Field(ge=0), Unit("nats")] = 0.0
    """Promise of user-level differential privacy: epsilon of all rounds together; 0 is without."""
    target_delta: Annotated[float, Field(gt=0, lt=1), Unit("probability")] = 1e-5
    """Delta of the promise, well below one over the number of clients."""
    noise_multiplier: Annotated[float, Field(ge=0), Unit("sensitivities")] = 0.0
    """Noise of each round's sum; 0 takes the least with which all rounds keep the promise."""
    vote_step: Annotated[float, Field(gt=0), Unit("coordinates")] = 0.02
    """Step of a unanimous vote in a round, where updates are votes under differential privacy."""
    clipping_norm: Annotated[float, Field(gt=0), Unit("Euclidean norm")] = 0.5
    """Norm to which other updates are clipped under differential privacy."""
    client_sampling: Literal["all", "poisson"] = "all"
    """Who may take part in a round: `all`, or each client by a secret coin (`poisson`), so that
    `clients-per-round` are expected; coins tell less, to all who do not see whom the cloud asks."""

    @property
    def private(self) -> bool:
        """Whether rounds are noised."""
        return self.target_epsilon > 0

    @model_validator(mode="after")
    def _check_promise(self) -> Self:
        if not self.private and (self.noise_multiplier or self.client_sampling != "all"):
            raise InputError("noise-multiplier and client-sampling need a target-epsilon above 0")
        return self
