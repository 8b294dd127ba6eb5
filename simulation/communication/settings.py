"""The settings of one study of score against bytes."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.fields import (
    AnswerBatch,
    BaseModelName,
    Device,
    Items,
    ModelType,
    PromptStyle,
    TaskNames,
)
from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import PromptForm
from fedperfit.simulation.world.settings import (
    DataPlace,
    Others,
    ParticipantCounts,
    Targets,
    WorldHistory,
    WorldQuestions,
)


class CommunicationSettings(Settings):
    """What is compared, on what, how often."""

    tasks: TaskNames = ["LaMP_2M"]
    rows: Annotated[list[str], Unit("names")] = []
    """Rows by name; an empty list takes all."""
    preset: Annotated[str, Unit("name or TOML file")] = "quickstart"
    """Preset that gives layers, positions, ranks, batches and personal epochs."""
    base_model: BaseModelName = "embedded"
    data: DataPlace = "world"
    public_items: Annotated[str, Unit("file")] = ""
    """JSON list of public items of the task, of which data of one's own makes public bases."""
    device: Device = "auto"
    dtype: ModelType = "auto"
    prompt_form: PromptStyle = PromptForm.LAMP
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), Unit("numbers")] = [0]
    """Seeds of training; every row is trained once with each."""
    draws: Annotated[int, Field(ge=1), Unit("draws")] = 4
    """Rates that every row tries on others, with the first seed."""
    lowest_rate: Annotated[float, Field(gt=0), Unit("per step")] = 1e-3
    """Lowest rate that may be drawn; a large model needs a lower one."""
    highest_rate: Annotated[float, Field(gt=0), Unit("per step")] = 1e-1
    """Highest rate that may be drawn."""
    others: Others = 40
    users: Targets = 24
    world_history: WorldHistory = 64
    world_questions: WorldQuestions = 20
    validation_users: Annotated[int, Field(ge=1), Unit("users")] = 8
    """Others kept from training, on whom the draws are scored."""
    validation_questions: Annotated[int, Field(ge=1), Unit("questions")] = 16
    """Questions of a validating user, at most."""
    rounds: Annotated[int, Field(ge=1), Unit("rounds")] = 8
    """Rounds of every row whose name says nothing else."""
    clients_per_round: Annotated[int, Field(ge=0), Unit("clients")] = 20
    """Clients of a round, or all where there are fewer; 0 is all."""
    collective_items: Annotated[int, Field(ge=1), Unit("pairs")] = 24
    """A client's latest pairs, which it trains on in a round."""
    personal_items: Items = 16
    """A target's latest items, of which rows with a personal part fit it; 0 is all."""
    answer_batch: AnswerBatch = 20
    bootstrap_samples: Annotated[int, Field(ge=1), Unit("samples")] = 2000
    """Samples of users behind every interval."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lowest_rate > self.highest_rate:
            raise InputError(f"lowest-rate={self.lowest_rate:g} exceeds highest-rate={self.highest_rate:g}")
        return self

    @property
    def size(self) -> ParticipantCounts:
        """How much of the data takes part."""
        return ParticipantCounts(
            others=self.others,
            targets=self.users,
            world_history=self.world_history,
            world_questions=self.world_questions,
        )
