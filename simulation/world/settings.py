"""How many people take part, and of the synthetic world how many items each of them has."""

from typing import Annotated

from pydantic import Field

from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.rules import Unit

Others = Annotated[
    int,
    Field(ge=1, description="Other users, whose histories train what is shared, at most."),
    Unit("users"),
]
Targets = Annotated[
    int, Field(ge=1, description="Target users, who are personalized and asked, at most."), Unit("users")
]
NewUsers = Annotated[
    int,
    Field(ge=1, description="New users for cold start; real data without such a group uses the targets."),
    Unit("users"),
]
WorldHistory = Annotated[
    int, Field(ge=1, description="History items of a user of the synthetic world."), Unit("items")
]
WorldQuestions = Annotated[
    int,
    Field(
        ge=1,
        description="Questions of a target or new user of the world; others answer a quarter as many.",
    ),
    Unit("questions"),
]
DataPlace = Annotated[
    str,
    Unit("folder"),
    Field(description="Folder with LaMP files (or one such folder per task), or `world`: synthetic users."),
]
HistoryLengths = Annotated[
    list[Annotated[int, Field(ge=0)]],
    Field(description="Lengths of history at which cold start is measured; an empty list leaves it out."),
    Unit("items"),
]


class WorldSize(Settings):
    """How many users and items a world has."""

    others: Others = 40
    targets: Targets = 24
    new: NewUsers = 24
    history: WorldHistory = 64
    questions: WorldQuestions = 20


class ParticipantCounts(Settings):
    """How many users take part in a comparison or a study, and of the world how many items each has."""

    others: Others
    targets: Targets
    world_history: WorldHistory
    world_questions: WorldQuestions
