"""The settings of one run: a preset's TOML file, then the user's own values."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Self

from cloud.settings import FederationSettings
from protocol.base_model import BaseModelCard
from protocol.errors import InputError
from protocol.positions import Positions
from protocol.settings import EvaluationSettings, PersonalSettings, TrainingSettings
from protocol.shift import ShiftShape
from protocol.tasks import task_by_name

SETTINGS = "settings.json"
"""A run's settings, in its folder."""
WORLD = "world"
"""Value of `data` that names the synthetic world."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One run; the keys of a preset are these names with hyphens."""

    task: str
    """LaMP task, e.g. LaMP_2M."""
    base_model: str
    """Folder, hub name, or `embedded`."""
    data: str
    """Folder with the task's LaMP files, or `world`."""
    device: str = "auto"
    dtype: str = "auto"
    """Of the base model: auto, float32 or bfloat16."""
    cache_gib: float = -1.0
    """GiB a process keeps of what the base model makes of items; -1 is a quarter of the memory, 0 nothing."""
    prompt_form: str = "lamp"
    """`lamp` or `oppu`."""
    layers: list[int]
    """Decoder layers to shift, of a model of `layers_of` layers; scaled by depth to another model."""
    layers_of: int
    positions: str
    collective_rank: int
    personal_rank: int
    additive: bool = False
    """Add the two shifts' deltas instead of applying the personal shift after the collective."""

    rounds: int
    clients_per_round: int = 0
    """Updates a round wants; 0 is all others."""
    over_selection: float = 1.0
    deadline_seconds: float = 86_400.0
    """A simulated client is slow only because others have the machine: wait a day."""
    transport_dtype: str = "float32"
    collective_epochs: int = 1
    """Local epochs per round."""
    collective_learning_rate: float
    collective_max_items: int = 0
    """Latest pairs a client trains on per round; 0 is all."""
    personal_epochs: int
    personal_learning_rate: float
    personal_max_items: int = 0
    batch_size: int
    weight_decay: float = 0.01
    clip_norm: float = 0.3
    evaluation_batch_size: int = 20
    share_metrics: bool = True
    """What the simulated owners allow; without it there is nothing to report."""

    seed: int = 0
    others: int = 40
    """Users that train the collective shift: of the world this many, of real data at most this many."""
    targets: int = 24
    new: int = 24
    """New users for cold start; real data without such a group uses the targets."""
    world_history: int = 64
    world_questions: int = 20
    history_lengths: list[int]
    """Cold start by history length; empty for none."""
    collective_sizes: list[int]
    """Cold start by number of collective clients; empty for none."""
    collective_study_items: int = 16
    """History items of a new user in the study by number of collective clients."""
    bootstrap_samples: int = 2000

    def __post_init__(self) -> None:
        task_by_name(self.task)
        Positions.parse(self.positions)
        for name in ("others", "targets", "new", "world_history", "world_questions", "layers_of"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        for name, least in (("history_lengths", 0), ("collective_sizes", 1)):
            if any(value < least for value in getattr(self, name)):
                raise InputError(f"{name}={getattr(self, name)}: values must be at least {least}")
        if any(not 0 <= layer < self.layers_of for layer in self.layers):
            raise InputError(
                f"layers={self.layers}: a model of {self.layers_of} layers has 0..{self.layers_of - 1}"
            )
        self.federation()
        self.training(personal=False)
        self.training(personal=True)
        self.personal("full")
        self.evaluation("personal", "full")

    @classmethod
    def read(cls, preset: str, overrides: Mapping[str, Any] | None = None) -> Self:
        """A preset by name (`quickstart`) or TOML file, with `overrides` on top.

        Raises InputError for an unknown preset or key, or a value that is not allowed.
        """
        return cls.from_flat(read_preset(preset) | dict(overrides or {}))

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Self:
        """From keys with hyphens, of their declared types; raises InputError for anything else."""
        kinds: dict[str, Any] = {field.name: field.type for field in fields(cls)}
        arguments: dict[str, Any] = {}
        for key, value in values.items():
            name = key.replace("-", "_")
            if name not in kinds:
                raise InputError(f"unknown setting {key!r}; known are {', '.join(_keys(cls))}")
            arguments[name] = _checked(key, value, kinds[name])
        missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in arguments]
        if missing:
            raise InputError(f"settings lack {', '.join(name.replace('_', '-') for name in missing)}")
        return cls(**arguments)

    def to_flat(self) -> dict[str, Any]:
        """Keys with hyphens."""
        return {name.replace("_", "-"): value for name, value in asdict(self).items()}

    def shape(self, card: BaseModelCard) -> ShiftShape:
        """Of the collective shift on this base model, layers scaled by depth.

        Raises InputError when rank or layers do not fit the model.
        """
        depth = card.layers
        scaled = sorted({min(depth - 1, round(layer * depth / self.layers_of)) for layer in self.layers})
        shape = ShiftShape(
            layers=tuple(scaled),
            rank=self.collective_rank,
            hidden_size=card.hidden_size,
            positions=Positions.parse(self.positions),
        )
        shape.check_effect(depth)
        if self.personal_rank > card.hidden_size:
            raise InputError(f"rank={self.personal_rank} is outside 1..{card.hidden_size}, the hidden size")
        return shape

    def federation(self) -> FederationSettings:
        """The cloud's part."""
        return FederationSettings(
            rounds=self.rounds,
            clients_per_round=self.clients_per_round,
            over_selection=self.over_selection,
            deadline_seconds=self.deadline_seconds,
            seed=self.seed,
            dtype=self.transport_dtype,
        )

    def training(self, *, personal: bool, max_items: int | None = None) -> TrainingSettings:
        """How a client trains one stage."""
        items = self.personal_max_items if personal else self.collective_max_items
        return TrainingSettings(
            seed=self.seed,
            epochs=self.personal_epochs if personal else self.collective_epochs,
            batch_size=self.batch_size,
            learning_rate=self.personal_learning_rate if personal else self.collective_learning_rate,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            max_items=items if max_items is None else max_items,
            prompt_form=self.prompt_form,
        )

    def personal(self, slot: str) -> PersonalSettings:
        """The personal shift a client keeps in `slot`."""
        return PersonalSettings(rank=self.personal_rank, additive=self.additive, slot=slot)

    def evaluation(self, stage: str, slot: str = "full") -> EvaluationSettings:
        """How a client answers its questions at one stage."""
        return EvaluationSettings(
            stage=stage,
            slot=slot,
            additive=self.additive,
            batch_size=self.evaluation_batch_size,
            prompt_form=self.prompt_form,
        )


def read_preset(preset: str) -> dict[str, Any]:
    """The values of a preset, by the name of one that ships or by file."""
    path = Path(preset)
    if path.suffix != ".toml":
        names = preset_names()
        if preset not in names:
            raise InputError(f"unknown preset {preset!r}: expected a .toml file or one of {', '.join(names)}")
        path = Path(str(resources.files("configs") / f"{preset}.toml"))
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None


def preset_names() -> list[str]:
    """The presets that ship."""
    return sorted(
        Path(entry.name).stem for entry in resources.files("configs").iterdir() if ".toml" in entry.name
    )


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """`key=value` strings as TOML values; a bare word is a string. Raises InputError."""
    values = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise InputError(f"{assignment!r}: expected key=value")
        try:
            values[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = text
    return values


def _keys(cls: type[RunSettings]) -> list[str]:
    return [field.name.replace("_", "-") for field in fields(cls)]


def _checked(key: str, value: Any, kind: Any) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    if kind == list[int]:
        if not isinstance(value, list) or any(type(entry) is not int for entry in value):
            raise InputError(f"{key}={value!r}: expected a list of whole numbers")
    elif type(value) is not kind:
        raise InputError(f"{key}={value!r}: expected {kind.__name__}")
    return value
