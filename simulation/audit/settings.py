"""The settings of one audit: those of the federation that is attacked, and how much is tried."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.edge.agent.consent import MOST_EPSILON
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.settings.fields import Device, ModelType, TransportType, UpdateBasis
from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.policy import LEAST_ITEMS
from fedperfit.simulation.world.settings import DataPlace, Others, WorldHistory


class AuditSettings(JobSettings):
    """What is attacked, and how often."""

    attacks: Annotated[list[str], Unit("names")] = []
    """Attacks by name; an empty list takes all."""
    attack_files: Annotated[list[str], Unit("files")] = []
    """Python files with attacks of the user's own."""
    data: DataPlace = "world"
    device: Device = "auto"
    dtype: ModelType = "auto"
    update_basis: UpdateBasis = "public"
    transport_dtype: TransportType = "sign"
    others: Others = 40
    world_history: WorldHistory = 64
    items: Annotated[int, Field(ge=1), Unit("items")] = LEAST_ITEMS
    """Items of a person that an update or a personal shift is made of; as many others are decoys."""
    sums: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), Unit("clients")] = [1, 5, 20]
    """Numbers of clients whose sum is all that the cloud sees."""
    personal_epsilon: Annotated[float, Field(ge=0, le=MOST_EPSILON), Unit("epsilon")] = 0.0
    """What a stolen personal shift may tell of any one item, by noise in its fit; 0 sets no limit."""
    shift_owners: Annotated[int, Field(ge=2), Unit("users")] = 12
    """People whose personal shifts are stolen and whose texts are read, which takes longest."""
    shadows: Annotated[int, Field(ge=4), Unit("fits")] = 8
    """Fits that an attacker makes of a person's possible items, to learn what each of them does."""
    noise_epsilons: Annotated[list[Annotated[float, Field(gt=0)]], Unit("nats")] = [8.0, 1.0]
    """Promises of differential privacy under which sums are attacked too, at `target-delta`."""
    bootstrap_samples: Annotated[int, Field(ge=1), Unit("samples")] = 1000
    """Samples of users behind every interval."""

    @classmethod
    def read(cls, preset: str, overrides: Mapping[str, Any] | None = None) -> Self:
        """The settings of a preset, of which only the federation's count, with `overrides` on top.

        Args:
            preset: One that ships, by name, or a TOML file.
            overrides: Values by key.

        Raises:
            InputError: The preset or a key is unknown, or a value is not allowed.
        """
        return cls.from_flat(cls.own_keys(read_preset(preset)) | dict(overrides or {}))

    @model_validator(mode="after")
    def _check_personal_epsilon(self) -> Self:
        if self.personal_epsilon and self.personal_basis == "none":
            raise InputError(f"personal-epsilon={self.personal_epsilon:g}: only with a personal-basis")
        return self

    @classmethod
    def own_keys(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those values of a preset that an audit has too, numbers of people excepted."""
        return {key: value for key, value in cls.own(values).items() if key not in ("others",)}
