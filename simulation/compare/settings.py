"""The settings of one comparison."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import PromptForm, task_by_name
from fedperfit.simulation.data.participants import ParticipantCounts

BOOTSTRAP_SAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """What is compared, on what, how often."""

    tasks: list[str]
    methods: list[str]
    """By name; what they build on is searched too, but makes no row."""
    method_files: list[str]
    """Python files with methods of the user's own."""
    base_model: str
    data: str
    encoder: str = ""
    """Of sentences, for CHAMELEON's selection of items; empty: the base model."""
    device: str = "auto"
    dtype: str = "auto"
    prompt_form: str = PromptForm.LAMP.value
    seeds: list[int]
    draws: int = 20
    """Of the random search, for every method."""
    values_of: str = ""
    """Folder of the comparison whose search logs were taken over; empty: none."""
    others: int = 40
    users: int = 12
    """Target users at most."""
    world_history: int = 64
    world_questions: int = 20
    validation_users: int = 0
    """Of the others, kept from training while values are chosen; 0 is as many as have enough questions."""
    validation_questions: int = 16
    """Of each of them, at most."""
    validation_items: int = 16
    """History items of each of them, the latest."""
    search_pairs: int = 256
    """Of the others' pairs, while collective hyper-parameters are chosen."""
    collective_items: int = 24
    """Pairs of each other user that collective parts are trained on."""
    history_lengths: list[int]
    """Cold start by history; empty for none."""
    collective_sizes: list[int]
    """Cold start by number of other users; all is always there. Empty for none."""
    curve_users: int = 8
    """Target users of the cold-start curves; these have one seed."""
    curve_items: int = 16
    """Their history items where the number of other users varies."""
    batch_size: int = 8
    answer_batch: int = 20

    def __post_init__(self) -> None:
        for task in self.tasks:
            task_by_name(task)
        if self.prompt_form not in tuple(PromptForm):
            raise InputError(f"prompt_form={self.prompt_form!r}: expected lamp or oppu")
        for name in ("tasks", "methods", "seeds"):
            values = getattr(self, name)
            if not values:
                raise InputError(f"{name}: name at least one")
            if len(set(values)) != len(values):
                raise InputError(f"{name}={','.join(map(str, values))}: each once")
        for name, value in asdict(self).items():
            least = 0 if name == "validation_users" else 1
            if type(value) is int and value < least:
                raise InputError(f"{name}={value}: must be at least {least}")
        for name, least in (("history_lengths", 0), ("collective_sizes", 1), ("seeds", 0)):
            _at_least(name, getattr(self, name), least)

    @property
    def size(self) -> ParticipantCounts:
        """Of the data."""
        return ParticipantCounts(
            others=self.others,
            targets=self.users,
            world_history=self.world_history,
            world_questions=self.world_questions,
        )

    def to_flat(self) -> dict[str, Any]:
        """As JSON values, keys with hyphens."""
        return {name.replace("_", "-"): value for name, value in asdict(self).items()}

    @classmethod
    def from_flat(cls, values: dict[str, Any]) -> Self:
        """The inverse; raises InputError for other keys."""
        try:
            return cls(**{key.replace("-", "_"): value for key, value in values.items()})
        except TypeError:
            raise InputError("settings of a comparison of another version: start a new one") from None


def _at_least(name: str, values: Sequence[int], least: int) -> None:
    if any(value < least for value in values):
        raise InputError(f"{name}={','.join(map(str, values))}: values must be at least {least}")
