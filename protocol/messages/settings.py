"""What the cloud may ask of an edge, as flat values that fit a Flower ConfigRecord."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field

from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.fields import (
    Additive,
    AnswerBatch,
    BasisDigest,
    BatchSize,
    ClipNorm,
    Epochs,
    Items,
    LearningRate,
    PromptPositions,
    PromptStyle,
    Rank,
    Seed,
    TransportType,
    WeightDecay,
)
from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.system.errors import InputError

FULL_SLOT = "full"
"""Slot of the personal shift in use; a study's shifts have slots of their own."""
ROWS = 2
"""Rows of moments that travel."""
FEWEST_PAIRS = 2 * ROWS
"""Of a contributor of statistics: as many rows as pairs would be the pairs' hidden states, up to a rotation;
a mean of few tells much of each."""


class Stage(StrEnum):
    """How much is known of a person, from nothing to all that is."""

    BASE = "base"
    COLLECTIVE = "collective"
    DIRECTIONS = "directions"
    PERSONAL = "personal"


class MessageSettings(Settings):
    """One part of a request; several stand side by side in one record."""

    def to_config(self) -> dict[str, bool | int | float | str]:
        """Values by key, as ConfigRecord scalars."""
        return self.to_flat()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The inverse of `to_config`; keys of other parts are left to them.

        Raises:
            InputError: A key is missing, or a value is not allowed.
        """
        return cls.from_some(config)


class TrainingSettings(MessageSettings):
    """How one stage is trained on one client: AdamW on the mean loss of batches, in nats per target token."""

    seed: Seed
    """Seed of the order of the items."""
    epochs: Epochs
    """Passes over the client's items."""
    batch_size: BatchSize
    """Items per optimizer step."""
    learning_rate: LearningRate
    """Peak of AdamW's rate: falls linearly to a tenth over a personal fit, stays constant in a round."""
    weight_decay: WeightDecay
    """AdamW's decoupled decay of W and b; the orthonormal R has none."""
    clip_norm: ClipNorm
    """Greatest Euclidean norm of a step's gradient; a longer one is scaled down to it."""
    max_items: Items
    """The client's latest items to train on, at most; 0 is all."""
    prompt_form: PromptStyle
    """Template of the prompts."""


class CoordinateSettings(MessageSettings):
    """The basis a round is trained in, and how its updates are encoded; missing where shifts travel whole."""

    basis: BasisDigest
    codec: TransportType

    @classmethod
    def of(cls, basis: str, codec: str) -> Self:
        """Name a basis by its digest, and an encoding; raises InputError for an unknown one."""
        return cls.from_some({"basis": basis, "codec": codec})

    @classmethod
    def given(cls, config: Mapping[str, Any]) -> Self | None:
        """Read them from a request; None where it has none."""
        return cls.from_some(config) if "basis" in config else None


SlotName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9-]{1,64}\z"),
    Unit("at most 64 letters, digits and hyphens"),
]


class PersonalSettings(MessageSettings):
    """What a personal shift is, beside how it is trained."""

    rank: Rank
    """Rank of the personal shift."""
    additive: Additive
    slot: SlotName
    """Name under which the client keeps the shift; a study keeps several."""


class PairSource(StrEnum):
    """Where the two texts of a preference pair come from."""

    INSIGHTS = "insights"
    """Both written by the model under insights it wrote: the paper's, for models that follow instructions."""
    CONTRAST = "contrast"
    """The person's own answer against the bare model's, for models too small to write insights."""


class PairSettings(MessageSettings):
    """How a client makes the preference pairs it contributes to the group's directions."""

    items: Annotated[int, Field(ge=FEWEST_PAIRS), Unit("items")]
    """History items to make a preference pair of, at most."""
    source: Annotated[PairSource, Field(strict=False)]
    """Where a pair's two texts come from: `contrast` or `insights`."""
    batch_size: AnswerBatch
    prompt_form: PromptStyle


def _pairs(count: int) -> int:
    if 0 < count < FEWEST_PAIRS:
        raise InputError(f"max-items={count}: expected 0, which is all, or at least {FEWEST_PAIRS} pairs")
    return count


class LayerGradientSettings(MessageSettings):
    """What a client's layer gradient is taken of."""

    positions: PromptPositions
    max_items: Annotated[Items, AfterValidator(_pairs)]
    """The client's latest pairs, at most; 0 is all."""
    batch_size: BatchSize
    prompt_form: PromptStyle


class EvaluationSettings(MessageSettings):
    """What answers a client's questions."""

    stage: Annotated[Stage, Field(strict=False)]
    """Stage that answers: `base`, `collective`, or on top of that `directions` or `personal`."""
    slot: str
    """Slot of the personal shift; ignored at other stages."""
    additive: Additive
    batch_size: AnswerBatch
    prompt_form: PromptStyle
