"""The settings of one comparison."""

from typing import Annotated

from pydantic import Field

from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.fields import (
    AnswerBatch,
    BaseModelName,
    Device,
    Encoder,
    ModelType,
    PromptStyle,
    TaskNames,
)
from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.tasks import PromptForm
from fedperfit.simulation.world.settings import (
    DataPlace,
    HistoryLengths,
    Others,
    ParticipantCounts,
    Targets,
    WorldHistory,
    WorldQuestions,
)

BOOTSTRAP_SAMPLES = 2000


class CompareSettings(Settings):
    """What is compared, on what, how often."""

    tasks: TaskNames = ["LaMP_2M"]
    methods: Annotated[list[str], Field(min_length=1), Unit("names")]
    """Methods by name; what they build on is searched too, but makes no row."""
    method_files: Annotated[list[str], Unit("files")] = []
    """Python files with methods of the user's own; their rows join in."""
    base_model: BaseModelName = "embedded"
    data: DataPlace = "world"
    encoder: Encoder = ""
    device: Device = "auto"
    dtype: ModelType = "auto"
    prompt_form: PromptStyle = PromptForm.LAMP
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), Unit("numbers")] = [0, 1, 2]
    """Seeds of training; every method has a row of results for each."""
    draws: Annotated[int, Field(ge=1), Unit("draws")] = 20
    """Random draws of hyper-parameters, for every method."""
    values_of: Annotated[str, Unit("folder")] = ""
    """Folder of a comparison whose chosen hyper-parameters are taken over; empty: none."""
    others: Others = 40
    users: Targets = 12
    world_history: WorldHistory = 64
    world_questions: WorldQuestions = 20
    validation_users: Annotated[int, Field(ge=0), Unit("users")] = 0
    """Others kept from training, on whom the draws are scored; 0 is as many as have 80 questions, or half."""
    validation_questions: Annotated[int, Field(ge=1), Unit("questions")] = 16
    """Questions of a validating user, at most."""
    validation_items: Annotated[int, Field(ge=1), Unit("items")] = 16
    """History items of a validating user, the latest."""
    search_pairs: Annotated[int, Field(ge=1), Unit("pairs")] = 256
    """Training pairs of the others while collective hyper-parameters are chosen."""
    collective_items: Annotated[int, Field(ge=1), Unit("pairs")] = 24
    """Training pairs of each other user for collective parts."""
    history_lengths: HistoryLengths = [0, 1, 2, 4, 8, 16, 32, 64]
    collective_sizes: Annotated[list[Annotated[int, Field(ge=1)]], Unit("users")] = [10, 20, 50]
    """Numbers of other users at which cold start is measured, beside all; an empty list leaves it out."""
    curve_users: Annotated[int, Field(ge=1), Unit("users")] = 8
    """Target users of the cold-start curves; these have one seed."""
    curve_items: Annotated[int, Field(ge=1), Unit("items")] = 16
    """Their history items where the number of other users varies."""
    batch_size: Annotated[int, Field(ge=1), Unit("items")] = 8
    """Items in a training step of every method."""
    answer_batch: AnswerBatch = 20

    @property
    def size(self) -> ParticipantCounts:
        """How much of the data takes part."""
        return ParticipantCounts(
            others=self.others,
            targets=self.users,
            world_history=self.world_history,
            world_questions=self.world_questions,
        )
