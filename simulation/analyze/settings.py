"""The settings of one delta-vector study."""

from dataclasses import asdict, dataclass
from typing import Any

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import PromptForm, task_by_name
from fedperfit.simulation.compare.prompts import SENTENCES, TEMPLATES
from fedperfit.simulation.data.participants import ParticipantCounts

LEAST_USERS = 4
"""Two in each half."""


@dataclass(frozen=True, kw_only=True)
class AnalyzeSettings:
    """What is analysed, on what."""

    tasks: list[str]
    base_model: str
    data: str
    device: str = "auto"
    dtype: str = "auto"
    prompt_form: str = PromptForm.LAMP.value
    template: str = SENTENCES
    """How history is shown: `sentences` or `pairs`."""
    users: int = 24
    """Target users at most."""
    queries: int = 8
    """Questions of each user at most."""
    world_history: int = 64

    def __post_init__(self) -> None:
        for task in self.tasks:
            task_by_name(task)
        if not self.tasks:
            raise InputError("tasks: name at least one")
        if len(set(self.tasks)) != len(self.tasks):
            raise InputError(f"tasks={','.join(self.tasks)}: each once")
        if self.prompt_form not in tuple(PromptForm):
            raise InputError(f"prompt_form={self.prompt_form!r}: expected lamp or oppu")
        if self.template not in TEMPLATES:
            raise InputError(f"template={self.template!r}: expected {' or '.join(TEMPLATES)}")
        for name, least in (("users", LEAST_USERS), ("queries", 1), ("world_history", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}: must be at least {least}")

    @property
    def size(self) -> ParticipantCounts:
        """Of the data; others take no part."""
        return ParticipantCounts(
            others=1, targets=self.users, world_history=self.world_history, world_questions=self.queries
        )

    def to_flat(self) -> dict[str, Any]:
        """As JSON values, keys with hyphens."""
        return {name.replace("_", "-"): value for name, value in asdict(self).items()}
