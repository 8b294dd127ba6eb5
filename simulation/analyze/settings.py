"""The settings of one delta-vector study."""

from typing import Annotated, Literal

from pydantic import Field

from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.fields import BaseModelName, Device, ModelType, PromptStyle, TaskNames
from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.tasks import PromptForm
from fedperfit.simulation.world.settings import DataPlace, ParticipantCounts, WorldHistory

LEAST_USERS = 4
"""Fewest users of a study: two in each half."""


class AnalyzeSettings(Settings):
    """What is analysed, on what."""

    tasks: TaskNames = ["LaMP_2M", "LaMP_3"]
    base_model: BaseModelName = "embedded"
    data: DataPlace = "world"
    device: Device = "auto"
    dtype: ModelType = "auto"
    prompt_form: PromptStyle = PromptForm.LAMP
    template: Literal["sentences", "pairs"] = "sentences"
    """How history is shown: `sentences`, LaMP's wording, or `pairs`, solved questions."""
    users: Annotated[int, Field(ge=LEAST_USERS), Unit("users")] = 24
    """Target users at most; no rank can be higher."""
    queries: Annotated[int, Field(ge=1), Unit("questions")] = 8
    """Questions at most, over which a user's vector is a mean."""
    world_history: WorldHistory = 64

    @property
    def size(self) -> ParticipantCounts:
        """How much of the data takes part; others do not."""
        return ParticipantCounts(
            others=1, targets=self.users, world_history=self.world_history, world_questions=self.queries
        )
