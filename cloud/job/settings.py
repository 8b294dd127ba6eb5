"""The settings of a federation and of what comes after: a preset's TOML file, then the user's values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from typing_extensions import TypedDict

from fedperfit.cloud.privacy.settings import PrivacySettings
from fedperfit.cloud.rounds.committee_settings import CommitteeSettings
from fedperfit.cloud.rounds.settings import FederationSettings, RoundSettings
from fedperfit.protocol.fitting import TO_BE_CHOSEN, FittingSettings, chosen_rank
from fedperfit.protocol.messages.settings import (
    FEWEST_PAIRS,
    FULL_SLOT,
    EvaluationSettings,
    LayerGradientSettings,
    PairSettings,
    PairSource,
    Stage,
    TrainingSettings,
)
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.secure_sums.fixed_point import CODECS
from fedperfit.protocol.settings.fields import (
    AUTO,
    WHOLE_SHIFTS,
    AnswerBatch,
    Auto,
    BaseModelName,
    Epochs,
    GivesWay,
    Items,
    LearningRate,
    PromptPositions,
    Rank,
    TaskName,
    TransportType,
    UpdateBasis,
)
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import task_id

if TYPE_CHECKING:
    from fedperfit.protocol.model.base_model import BaseModelCard
    from fedperfit.protocol.shift.selection import LayerGradient
    from fedperfit.protocol.shift.shape import ShiftShape

SETTINGS = "settings.json"
"""A run's settings, in its folder."""
SELECTION = "places.json"
"""There too: what was chosen for those that are `auto`, once (see `cloud.job.job`)."""
_UPDATES_FLOOR, _PUBLIC_FLOOR = 100.0, 0.3
_LEAST = {"layers": [0], "collective-rank": 1, "personal-rank": 1}
"""Smallest values of what may be `auto`."""


class Choice(TypedDict):
    """What a run chose for the settings that are `auto`."""

    settings: dict[str, Any]
    """What was chosen, by key."""
    relevance: list[float]
    """How much each layer matters."""
    clients: int
    """Number of clients that were asked."""
    seconds: float
    """How long it took."""


class JobSettings(RoundSettings, FittingSettings, PrivacySettings, CommitteeSettings):
    """One job: a collective shift by federation, personal shifts on top of it, their scores."""

    task: TaskName
    base_model: BaseModelName
    layers: list[Annotated[int, Field(ge=0), Unit("decoder layers")]] | Auto
    """Decoder layers to shift, of `layers-of`; `auto`: the two where the clients' gradients are largest."""
    layers_of: Annotated[int, Field(ge=1), Unit("decoder layers")]
    """Depth of the model in which `layers` are counted; another model's are scaled by its depth."""
    positions: PromptPositions
    collective_rank: Rank | Auto
    """Rank of the collective shift; `auto`: the least that holds 80 % of the gradients' energy."""
    warm_start: bool = False
    """Begin along the clients' leading gradients: fewer rounds, but few clients are overfitted sooner."""
    directions: bool = False
    """Find the group's directions (CHAMELEON) after the collective shift, and release them with it."""
    directions_items: Annotated[int, Field(ge=FEWEST_PAIRS), Unit("items")] = 10
    """History items that a client makes preference pairs of, at most."""
    directions_source: Annotated[PairSource, Field(strict=False)] = PairSource.CONTRAST
    """Texts of the preference pairs: `contrast`, or `insights` for models that follow instructions."""
    edited_layers: Annotated[int, Field(ge=1), Unit("decoder layers")] = 2
    """Decoder layers that the directions edit."""
    transport_dtype: TransportType = "float32"
    update_basis: UpdateBasis = "none"
    update_columns: Annotated[int, Field(ge=1), Unit("dimensions")] = 16
    """Rows of P, the directions in which states are read in an update basis, of each layer."""
    basis_file: Annotated[str, Unit("file")] = ""
    """File of a public basis, from `fedperfit basis`; empty: a run on the world makes one itself, others take
    the one that ships for task, model and shape."""
    personal_basis: Literal["none", "update"] = "none"
    """Frozen basis in which a personal shift is coordinates: `none` fits R, W and b of its own; `update` is
    the update basis, which the release then carries."""
    personal_columns: Annotated[int, Field(ge=1), Unit("dimensions")] = 16
    """Rows of P, of those that the update basis has, in which personal shifts read states."""
    people_prior: bool = False
    """Release a prior over people, under which a person with few items is fitted."""
    prior_source: Literal["updates", "public"] = "updates"
    """What tells how people differ: `updates`, those of the rounds; `public`, shifts of people who are nobody
    of the federation, fitted to all their items, which tells more and needs no word of a client's."""
    prior_file: Annotated[str, Unit("file")] = ""
    """How public people differ, a file from `fedperfit prior`; a run on the world makes one itself."""
    prior_strength: Annotated[float, Field(gt=0, le=100), Unit("weight")] = 0.15
    """Weight of the prior over people beside the sum of the losses of a person's answers; real people may
    need far more than those of the world (`fedperfit tune-prior`)."""
    prior_floor: Annotated[float, Field(ge=0, le=1000), Unit("share")] = 0.0
    """Variance of the prior in all directions, as a share of the mean variance between people; 0 is .3 for
    public people, and 100 for updates, which are so short and noisy that people had better vary alike in all
    directions."""
    prior_items: Annotated[int, Field(ge=1), Unit("items")] = 16
    """Most items of a person that the prior is used for unasked."""
    prior_gives_way: GivesWay = "items"
    personal_numbers: Annotated[int, Field(ge=0, le=64), Unit("numbers")] = 0
    """Numbers of a person under the prior, along the leading directions between people; 0 is all of the
    basis."""
    collective_epochs: Epochs = 1
    """Passes over a client's items in one round."""
    collective_learning_rate: LearningRate
    """Rate of collective training, constant in a round."""
    collective_max_items: Items = 0
    """A client's latest items to train on in a round, at most; 0 is all."""
    evaluation_batch_size: AnswerBatch = 20

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        if any(layer >= self.layers_of for layer in self._given_layers):
            raise InputError(
                f"layers={self.layers}: a model of {self.layers_of} layers has 0..{self.layers_of - 1}"
            )
        if self.open or self.warm_start or self.update_basis == "federated":
            self.layer_gradients()
        return self

    @model_validator(mode="after")
    def _check_basis(self) -> Self:
        if self.update_basis == "none" and self.transport_dtype not in WHOLE_SHIFTS:
            raise InputError(f"transport-dtype={self.transport_dtype}: only for updates in an update-basis")
        if self.update_basis != "none" and self.warm_start:
            raise InputError("warm-start: rounds in an update-basis start at the identity")
        if self.personal_basis != "none" and self.update_basis == "none":
            raise InputError(f"personal-basis={self.personal_basis}: only with an update-basis")
        if self.personal_basis != "none" and self.personal_columns > self.update_columns:
            raise InputError(
                f"personal-columns={self.personal_columns}: the update basis has {self.update_columns}"
            )
        if self.people_prior and self.personal_basis == "none":
            raise InputError("people-prior: only with a personal-basis")
        if self.prior_source == "public" and not self.people_prior:
            raise InputError("prior-source=public: only with people-prior")
        if self.prior_source == "public" and self.update_basis == "federated":
            raise InputError("prior-source=public: the basis must be known before the run, not federated")
        if self.prior_file and self.prior_source != "public":
            raise InputError(f"prior-file={self.prior_file}: only with prior-source=public")
        if self.personal_numbers and not self.people_prior:
            raise InputError(f"personal-numbers={self.personal_numbers}: only with people-prior")
        if self.basis_file and self.update_basis not in ("public", "learned"):
            raise InputError(f"basis-file={self.basis_file}: only with update-basis=public or learned")
        return self

    @model_validator(mode="after")
    def _check_private(self) -> Self:
        if self.private:
            over = f"over-selection={self.over_selection:g}"
            for name in [*self._telling_of_clients, *([over] if self.over_selection != 1 else [])]:
                raise InputError(f"target-epsilon={self.target_epsilon:g}: {name} tells of clients unnoised")
        return self

    @model_validator(mode="after")
    def _check_buffered(self) -> Self:
        waiting = {
            "update-basis=none": self.update_basis == "none",
            f"aggregation={self.aggregation}": self.aggregation != "mean",
            f"over-selection={self.over_selection:g}": self.over_selection != 1,
            f"secure-aggregation={self.secure_aggregation}": self.secure,
            f"target-epsilon={self.target_epsilon:g}": self.private,
            "people-prior": self.compares_updates,
        }
        for name in [name for name, is_set in waiting.items() if is_set and self.buffer_size]:
            raise InputError(
                f"buffer-size={self.buffer_size}: {name} needs rounds that wait for their clients"
            )
        return self

    @model_validator(mode="after")
    def _check_secure(self) -> Self:
        if self.secure:
            on = f"secure-aggregation={self.secure_aggregation}"
            for name in self._telling_of_clients:
                raise InputError(f"{on}: {name} looks at single clients")
            if self.transport_dtype not in CODECS:
                raise InputError(
                    f"{on}: transport-dtype={self.transport_dtype} is no fixed point; {', '.join(CODECS)} are"
                )
        return self

    @property
    def _telling_of_clients(self) -> list[str]:
        """Settings, as they stand, that need more of single clients than a sum."""
        there = {
            f"update-basis={self.update_basis}": self.update_basis in ("none", "federated"),
            f"aggregation={self.aggregation}": self.aggregation != "mean",
            "warm-start": self.warm_start,
            "directions": self.directions,
            "people-prior": self.compares_updates,
            AUTO: self.open,
        }
        return [name for name, is_set in there.items() if is_set]

    @property
    def compares_updates(self) -> bool:
        """Whether the prior over people is made of how single clients' updates differ."""
        return self.people_prior and self.prior_source == "updates"

    @property
    def floor(self) -> float:
        """Floor of the prior over people."""
        return self.prior_floor or (_UPDATES_FLOOR if self.prior_source == "updates" else _PUBLIC_FLOOR)

    @property
    def release_dtype(self) -> str:
        """Number format of releases, which are whole shifts whatever updates are."""
        return self.transport_dtype if self.transport_dtype in WHOLE_SHIFTS else "float32"

    @classmethod
    def read(cls, preset: str, overrides: Mapping[str, Any] | None = None) -> Self:
        """The settings of a preset, with `overrides` on top.

        Args:
            preset: One that ships, by name, or a TOML file.
            overrides: Values by key.

        Raises:
            InputError: The preset or a key is unknown, or a value is not allowed.
        """
        return cls.from_flat(read_preset(preset) | dict(overrides or {}))

    @property
    def task_id(self) -> str:
        """Name of the task in headers, releases and requests."""
        return task_id(self.task)

    @property
    def open(self) -> bool:
        """Whether something is chosen in the run."""
        return AUTO in (self.layers, self.collective_rank, self.personal_rank)

    def choose(self, layer_gradients: "Sequence[LayerGradient]", card: "BaseModelCard") -> dict[str, Any]:
        """What the clients' gradients tell for the settings that are `auto`, by key.

        Raises:
            InputError: Layers are given that do not fit the model.
        """
        from fedperfit.protocol.shift.selection import PERSONAL_SHARE, SHARE, least_rank, select_layers

        chosen: dict[str, Any] = {}
        layers = list(self.layers_on(card.layers))
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
        """These settings with what was chosen, by key."""
        return self.from_flat(self.to_flat() | dict(chosen))

    def check(self, card: "BaseModelCard") -> None:
        """Check what is given against the model, whatever will be chosen.

        Raises:
            InputError: It does not fit.
        """
        card.check_form(self.prompt_form)
        values = self.to_flat()
        self.settled({key: least for key, least in _LEAST.items() if values[key] == AUTO}).shape(card)

    def shape(self, card: "BaseModelCard") -> "ShiftShape":
        """Shape of the collective shift on a base model, layers scaled by depth.

        Raises:
            InputError: Rank or layers do not fit the model, or are still to be chosen.
        """
        from fedperfit.protocol.shift.packing import packed_size
        from fedperfit.protocol.shift.positions import Positions
        from fedperfit.protocol.shift.shape import ShiftShape
        from fedperfit.protocol.trust.release import MAX_BYTES

        if self.layers == AUTO:
            raise InputError(f"layers={AUTO}: {TO_BE_CHOSEN}")
        rank = chosen_rank("collective-rank", self.collective_rank)
        for key, value in (("collective-rank", rank), ("personal-rank", self.personal_rank)):
            if chosen_rank(key, value) > card.hidden_size:
                raise InputError(f"{key}={value} is outside 1..{card.hidden_size}, the hidden size")
        shape = ShiftShape(
            layers=self.layers_on(card.layers),
            rank=rank,
            hidden_size=card.hidden_size,
            positions=Positions.parse(self.positions),
        )
        shape.check_effect(card.layers)
        size = packed_size(shape, self.release_dtype)
        if size > MAX_BYTES:
            raise InputError(
                f"a release of {shape.parameters} numbers takes {size / 2**20:.1f} MiB, at most "
                f"{MAX_BYTES >> 20} are read: choose fewer layers or a lower collective-rank"
            )
        return shape

    @property
    def _given_layers(self) -> list[int]:
        return [] if isinstance(self.layers, str) else self.layers

    def layers_on(self, depth: int) -> tuple[int, ...]:
        """Layers of a model that the given ones are, scaled by depth; none where they are to be chosen.

        Args:
            depth: Number of the model's decoder layers.
        """
        scaled = {min(depth - 1, round(layer * depth / self.layers_of)) for layer in self._given_layers}
        return tuple(sorted(scaled))

    def federation(self) -> FederationSettings:
        """The settings of the rounds."""
        shared = {name: getattr(self, name) for name in RoundSettings.model_fields}
        return FederationSettings(**shared, dtype=self.transport_dtype)

    def collective_training(self) -> TrainingSettings:
        """How a client trains in one round."""
        return self.personal_training(max_items=self.collective_max_items).replace(
            epochs=self.collective_epochs, learning_rate=self.collective_learning_rate
        )

    def layer_gradients(self) -> LayerGradientSettings:
        """What the clients' layer gradients are taken of."""
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

    def evaluation(self, stage: Stage, slot: str = FULL_SLOT) -> EvaluationSettings:
        """How a client answers its questions at one stage."""
        return EvaluationSettings(
            stage=stage,
            slot=slot,
            additive=self.additive,
            batch_size=self.evaluation_batch_size,
            prompt_form=self.prompt_form,
        )


def read_settled(folder: Path) -> dict[str, Any]:
    """The settings of a run folder by key, with what was chosen for those that are `auto`.

    Raises:
        InputError: Naming a file that is missing, or of another form.
    """
    values = read_form(folder / SETTINGS, dict[str, Any])
    path = folder / SELECTION
    return values | read_form(path, Choice)["settings"] if path.exists() else values
