"""The settings of a federation and of what comes after: a preset's TOML file, then the user's values."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.protocol.messages.settings import (
    EvaluationSettings,
    LayerGradientSettings,
    PairSettings,
    PersonalSettings,
    TrainingSettings,
)
from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.selection import PERSONAL_SHARE, SHARE, LayerGradient, least_rank, select_layers
from fedperfit.protocol.shift.shift import ShiftShape
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.tasks import task_by_name

SETTINGS = "settings.json"
"""A run's settings, in its folder."""
SELECTION = "places.json"
"""There too: what was chosen for those that are `auto`, once (see `cloud.job.job`)."""
AUTO = "auto"
Auto = Literal["auto"]
"""Of a setting: chosen in the run, from the gradients of its clients' losses."""
_LATER = "chosen in a run, from what its clients tell; give a value here"


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """One job; the keys of a preset are these names with hyphens."""

    task: str
    """LaMP task, e.g. LaMP_2M."""
    base_model: str
    """Folder, hub name, or `embedded`."""
    prompt_form: str = "lamp"
    """`lamp` or `oppu`."""
    layers: list[int] | Auto
    """Decoder layers to shift, of a model of `layers_of` layers; scaled by depth to another model.
    `auto`: the two on which clients pull hardest (`protocol.shift.selection`)."""
    layers_of: int
    positions: str
    collective_rank: int | Auto
    """`auto`: the least that holds 80 % of the energy of the clients' gradients, 16 at most."""
    personal_rank: int | Auto
    """`auto`: the same for 50 %."""
    warm_start: bool = False
    """Begin collective training with R along the clients' leading gradients instead of at random, and with a
    small step down their mean gradient: fewer rounds to the same training loss; few clients are overfitted
    sooner."""
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
        if not isinstance(self.layers, str) and any(not 0 <= layer < self.layers_of for layer in self.layers):
            raise InputError(
                f"layers={self.layers}: a model of {self.layers_of} layers has 0..{self.layers_of - 1}"
            )
        self.federation()
        self.training(personal=False)
        self.training(personal=True)
        if self.personal_rank != AUTO:
            self.personal("full")
        if self.open or self.warm_start:
            self.layer_gradients()
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

    @property
    def open(self) -> bool:
        """Whether something is chosen in the run."""
        return AUTO in (self.layers, self.collective_rank, self.personal_rank)

    def choose(self, layer_gradients: Sequence[LayerGradient], card: BaseModelCard) -> dict[str, Any]:
        """What the clients' pulls tell for the settings that are `auto`, by key.

        Raises InputError when layers are given that do not fit the model.
        """
        chosen: dict[str, Any] = {}
        layers = self._layers(card.layers)
        if self.layers == AUTO:
            layers = list(select_layers(layer_gradients).layers)
            chosen |= {"layers": layers, "layers-of": card.layers}
        for key, value, share in (
            ("collective-rank", self.collective_rank, SHARE),
            ("personal-rank", self.personal_rank, PERSONAL_SHARE),
        ):
            if value == AUTO:
                chosen[key] = least_rank(layer_gradients, layers, share)
        return chosen

    def settled(self, chosen: Mapping[str, Any]) -> Self:
        """The same with what was chosen."""
        return self.from_flat(self.to_flat() | dict(chosen))

    def check(self, card: BaseModelCard) -> None:
        """Raise InputError when what is given does not fit the model, whatever will be chosen."""
        least = {"layers": [0], "collective-rank": 1, "personal-rank": 1}
        values = self.to_flat()
        self.settled({key: value for key, value in least.items() if values[key] == AUTO}).shape(card)

    def shape(self, card: BaseModelCard) -> ShiftShape:
        """Of the collective shift on this base model, layers scaled by depth.

        Raises InputError when rank or layers do not fit the model, or are still to be chosen.
        """
        if self.layers == AUTO:
            raise InputError(f"layers={AUTO}: {_LATER}")
        rank, own = self._rank("collective_rank"), self._rank("personal_rank")
        shape = ShiftShape(
            layers=tuple(self._layers(card.layers)),
            rank=rank,
            hidden_size=card.hidden_size,
            positions=Positions.parse(self.positions),
        )
        shape.check_effect(card.layers)
        if own > card.hidden_size:
            raise InputError(f"rank={own} is outside 1..{card.hidden_size}, the hidden size")
        return shape

    def _layers(self, depth: int) -> list[int]:
        given = [] if isinstance(self.layers, str) else self.layers
        return sorted({min(depth - 1, round(layer * depth / self.layers_of)) for layer in given})

    def _rank(self, name: Literal["collective_rank", "personal_rank"]) -> int:
        rank: int | Auto = getattr(self, name)
        if isinstance(rank, str):
            raise InputError(f"{name}={AUTO}: {_LATER}")
        return rank

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
        return PersonalSettings(rank=self._rank("personal_rank"), additive=self.additive, slot=slot)

    def layer_gradients(self) -> LayerGradientSettings:
        """What the clients' pulls are taken of."""
        return LayerGradientSettings(
            positions=self.positions,
            max_items=self.collective_max_items,
            batch_size=self.batch_size,
            prompt_form=self.prompt_form,
        )

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


def read_settled(folder: Path) -> dict[str, Any]:
    """The settings of a run folder by key, with what was chosen for those that are `auto`."""
    values: dict[str, Any] = read_json(folder / SETTINGS)
    path = folder / SELECTION
    return values | read_json(path)["settings"] if path.exists() else values


def _keys(cls: type[JobSettings]) -> list[str]:
    return [field.name.replace("_", "-") for field in fields(cls)]


def _checked(key: str, value: Any, kind: Any) -> Any:
    if Auto in get_args(kind):
        return value if value == AUTO else _checked(key, value, get_args(kind)[0])
    if kind is float and type(value) is int:
        value = float(value)
    if kind == list[int]:
        if not isinstance(value, list) or any(type(entry) is not int for entry in value):
            raise InputError(f"{key}={value!r}: expected a list of whole numbers")
    elif type(value) is not kind:
        raise InputError(f"{key}={value!r}: expected {kind.__name__}")
    return value
