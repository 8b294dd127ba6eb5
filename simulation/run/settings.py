"""The settings of one simulated run: those of the job, and who takes part."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.edge.agent.consent import MOST_EPSILON
from fedperfit.protocol.settings.fields import (
    CacheSize,
    Device,
    Encoder,
    Epochs,
    Items,
    LearningRate,
    ModelType,
)
from fedperfit.protocol.settings.rules import Repeatable, Unit
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.storages import Storage
from fedperfit.simulation.world.settings import (
    DataPlace,
    HistoryLengths,
    NewUsers,
    Others,
    Targets,
    WorldHistory,
    WorldQuestions,
)

Attack = Literal["sign-flip", "scale", "nans", "constant", "collude", "mixed"]
"""What liars send in place of their update (`simulation.run.faults`)."""


class RunSettings(JobSettings):
    """One simulated run; a preset's keys are these."""

    data: DataPlace
    device: Device = "auto"
    dtype: ModelType = "auto"
    cache_gib: CacheSize = -1.0
    encoder: Encoder = ""
    storages: Annotated[list[Storage], Unit("names"), Repeatable()] = []
    """How the clients store the base model, dealt out in turn: `fp32` as it is loaded, or with weights
    rounded as in `bf16`, `fp16`, `8-bit` or `4-bit` storage. An empty list is `fp32` for all."""
    share_metrics: bool = True
    """Whether the simulated owners send sums of losses and scores, without which nothing is reported."""
    personal_epsilon: Annotated[float, Field(ge=0, le=MOST_EPSILON), Unit("epsilon")] = 0.0
    """What a simulated person's shift may tell of any one item, by noise in its fit; 0 sets no limit."""
    others: Others = 40
    targets: Targets = 24
    new: NewUsers = 24
    world_history: WorldHistory = 64
    world_questions: WorldQuestions = 20
    history_lengths: HistoryLengths
    collective_sizes: list[Annotated[int, Field(ge=1), Unit("clients")]]
    """Numbers of collective clients at which cold start is measured; an empty list leaves it out."""
    collective_study_items: Items = 16
    """A new user's latest items in the study by number of collective clients; 0 is all."""
    bootstrap_samples: Annotated[int, Field(ge=1), Unit("samples")] = 2000
    """Samples of users behind every interval."""
    dropout: Annotated[float, Field(ge=0, lt=1), Unit("share")] = 0.0
    """Share of the clients asked that are lost in each round."""
    malicious: Annotated[float, Field(ge=0, lt=1), Unit("share")] = 0.0
    """Share of the others that lie in every round."""
    attack: Attack = "sign-flip"
    """What liars send: `sign-flip`, `scale` (100 times the change), `nans`, `constant`, `collude` (against
    all that was learned), or `mixed`."""
    device_seconds: Annotated[float, Field(ge=0), Unit("seconds")] = 0.0
    """Simulated time that the median client's device takes for an update, so that scores are told over time;
    0 simulates no time."""
    device_spread: Annotated[float, Field(ge=0, le=4), Unit("standard deviations")] = 1.0
    """How unlike the devices are: of the natural logarithms of their times. At 1 every tenth device takes 3.6
    times as long as the median one, or longer."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.warm_start and 1 in self.collective_sizes:
            raise InputError(
                f"collective-sizes={self.collective_sizes}: expected at least 2 clients each with warm-start"
            )
        if self.private and self.collective_sizes:
            raise InputError(
                f"target-epsilon={self.target_epsilon:g}: collective-sizes train the same clients again, "
                "which would be charged too; leave them empty"
            )
        return self

    @model_validator(mode="after")
    def _check_personal_epsilon(self) -> Self:
        if self.personal_epsilon and self.personal_basis == "none":
            raise InputError(f"personal-epsilon={self.personal_epsilon:g}: only with a personal-basis")
        return self

    @model_validator(mode="after")
    def _check_sums(self) -> Self:
        if not self.secure:
            return self
        on = f"secure-aggregation={self.secure_aggregation}"
        if self.malicious:
            raise InputError(f"{on}: malicious={self.malicious:g}: no lie can replace what is sealed")
        if self.device_seconds:
            raise InputError(f"{on}: device-seconds={self.device_seconds:g}: committees take time, too")
        least = min([self.others, *self.collective_sizes])
        if least < self.fewest_contributors:
            raise InputError(
                f"{on}: a training of {least} clients has no sum, which needs "
                f"fewest-contributors={self.fewest_contributors}"
            )
        return self

    def check_flower(self) -> None:
        """Check that Flower's own simulation can do all of it.

        Raises:
            InputError: Clients are lost, lie, or have devices that take their time.
        """
        if self.dropout or self.malicious or self.device_seconds:
            raise InputError(
                "dropout, malicious and device-seconds are simulated by --backend cohorts and ray only"
            )


class TuneSettings(RunSettings):
    """A run's settings, and what is tried for its personal shifts."""

    rates: Annotated[list[LearningRate], Field(min_length=1)] = [1e-3, 2e-3, 5e-3, 1e-2]
    """Peak learning rates to try."""
    epochs: Annotated[list[Epochs], Field(min_length=1)] = [4, 6]
    """Numbers of epochs to try with each of them."""
    users: Annotated[int, Field(ge=1), Unit("users")] = 8
    """Others to validate on, at most; no target user's question takes part."""

    @model_validator(mode="after")
    def _check_history(self) -> Self:
        if self.data == "world" and self.world_history < 2:
            raise InputError(
                f"world-history={self.world_history}: at least 2, as the latest items are held out to score"
            )
        return self
