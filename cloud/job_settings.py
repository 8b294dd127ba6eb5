"""The settings of a federation and of what comes after: a preset's TOML file, then the user's values."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Self

from cloud.presets import read_preset
from cloud.settings import FederationSettings
from protocol.base_model import BaseModelCard
from protocol.errors import InputError
from protocol.positions import Positions
from protocol.settings import EvaluationSettings, PairSettings, PersonalSettings, TrainingSettings
from protocol.shift import ShiftShape
from protocol.tasks import task_by_name

SETTINGS = "settings.json"
"""A run's settings, in its folder."""


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """One job; the keys of a preset are these names with hyphens."""

    task: str
    """LaMP task, e.g. LaMP_2M."""
    base_model: str
    """Folder, hub name, or `embedded`."""
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
    """Updates a round wants; 0 is all."""
    over_selection: float = 1.0
    deadline_seconds: float = 86_400.0
    """How long a round waits; a simulated client is slow only because others have the machine."""
    aggregation: str = "mean"
    """`mean`, or against liars `trimmed-mean`, `median`, `krum`, `multi-krum`."""
    assumed_malicious: float = 0.2
    """Share of the updates that may lie, which the rules against liars prepare for."""
    directions: bool = False
    """Find the group's directions (CHAMELEON) after the collective shift, and release them with it."""
    directions_items: int = 10
    """History items a client makes preference pairs of, at most."""
    directions_source: str = "contrast"
    """Of the pairs' texts: `contrast`, or `insights` for models that follow instructions."""
    edited_layers: int = 2
    """Decoder layers that the directions edit."""
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
    seed: int = 0

    def __post_init__(self) -> None:
        task_by_name(self.task)
        Positions.parse(self.positions)
        if self.layers_of < 1:
            raise InputError(f"layers_of={self.layers_of}: must be at least 1")
        if any(not 0 <= layer < self.layers_of for layer in self.layers):
            raise InputError(
                f"layers={self.layers}: a model of {self.layers_of} layers has 0..{self.layers_of - 1}"
            )
        self.federation()
        self.training(personal=False)
        self.training(personal=True)
        self.personal("full")
        self.evaluation("personal", "full")
        self.pairs()
        if self.edited_layers < 1:
            raise InputError(f"edited_layers={self.edited_layers}: must be at least 1")

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
            aggregation=self.aggregation,
            assumed_malicious=self.assumed_malicious,
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

    def pairs(self) -> PairSettings:
        """How a client makes the pairs it contributes to the group's directions."""
        return PairSettings(
            items=self.directions_items,
            source=self.directions_source,
            batch_size=self.evaluation_batch_size,
            prompt_form=self.prompt_form,
        )

    def evaluation(self, stage: str, slot: str = "full") -> EvaluationSettings:
        """How a client answers its questions at one stage."""
        return EvaluationSettings(
            stage=stage,
            slot=slot,
            additive=self.additive,
            batch_size=self.evaluation_batch_size,
            prompt_form=self.prompt_form,
        )


def _keys(cls: type[JobSettings]) -> list[str]:
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
