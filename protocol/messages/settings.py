"""What the cloud may ask of an edge, as flat values that fit a Flower ConfigRecord."""

import math
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import PromptForm


@dataclass(frozen=True, kw_only=True)
class _Flat:
    def to_config(self) -> dict[str, bool | int | float | str]:
        """Field names with hyphens, values as ConfigRecord scalars."""
        return {name.replace("_", "-"): value for name, value in asdict(self).items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The inverse of `to_config`; keys that are not fields are left to others.

        Raises InputError for a missing key or a value of the wrong type.
        """
        values = {}
        for field in fields(cls):
            key = field.name.replace("_", "-")
            if key not in config:
                raise InputError(f"settings lack {key!r}")
            value = config[key]
            if field.type is float and type(value) is int:
                value = float(value)
            if type(value) is not field.type:
                raise InputError(f"{key}={value!r}: expected {getattr(field.type, '__name__', field.type)}")
            values[field.name] = value
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(_Flat):
    """How one stage is trained on one client."""

    seed: int
    """Order of items, and the personal shift's start."""
    epochs: int
    batch_size: int
    learning_rate: float
    """Peak of AdamW's rate; it falls linearly to a tenth over a personal fit, is constant in a round."""
    weight_decay: float
    """Decoupled, on W and b; R has none."""
    clip_norm: float
    """Largest norm of the whole gradient."""
    max_items: int
    """At most this many of the client's latest pairs; 0 is all."""
    prompt_form: str
    """`lamp` or `oppu`."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name}={value}: must be positive")
        if not 0 <= self.weight_decay < 1:
            raise InputError(f"weight_decay={self.weight_decay}: must be in 0..1")
        if self.max_items < 0:
            raise InputError(f"max_items={self.max_items}: must not be negative")
        if self.prompt_form not in tuple(PromptForm):
            raise InputError(f"prompt_form={self.prompt_form!r}: expected lamp or oppu")


@dataclass(frozen=True, kw_only=True)
class PersonalSettings(_Flat):
    """What a personal shift is, beside how it is trained."""

    rank: int
    additive: bool
    """Add the two shifts' deltas instead of applying the personal shift after the collective."""
    slot: str
    """Name under which the client keeps the shift; a study keeps several."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"rank={self.rank}: must be at least 1")
        if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", self.slot):
            raise InputError(f"slot={self.slot!r}: at most 64 letters, digits and hyphens")


ROWS = 2
"""Rows of moments that travel."""
FEWEST_PAIRS = 2 * ROWS
"""Of a contributor of statistics: as many rows as pairs would be the pairs' hidden states, up to a rotation;
a mean of few tells much of each."""
PAIR_SOURCES = ("contrast", "insights")
"""Where the two texts of a preference pair come from."""


@dataclass(frozen=True, kw_only=True)
class PairSettings(_Flat):
    """How a client makes the preference pairs it contributes to the group's directions."""

    items: int
    """Of its history, at most; a pair each."""
    source: str
    """`contrast` (its own answer, the bare model's) or `insights` (both written by the model)."""
    batch_size: int
    prompt_form: str

    def __post_init__(self) -> None:
        if self.items < FEWEST_PAIRS:
            raise InputError(f"items={self.items}: must be at least {FEWEST_PAIRS}")
        if self.source not in PAIR_SOURCES:
            raise InputError(f"source={self.source!r}: expected one of {', '.join(PAIR_SOURCES)}")
        if self.batch_size < 1:
            raise InputError(f"batch_size={self.batch_size}: must be at least 1")
        if self.prompt_form not in tuple(PromptForm):
            raise InputError(f"prompt_form={self.prompt_form!r}: expected lamp or oppu")


@dataclass(frozen=True, kw_only=True)
class LayerGradientSettings(_Flat):
    """What a client's pull is taken of."""

    positions: str
    """Where in the prompts, e.g. `l7`."""
    max_items: int
    """At most this many of the client's latest pairs; 0 is all."""
    batch_size: int
    prompt_form: str

    def __post_init__(self) -> None:
        if self.max_items < 0 or 0 < self.max_items < FEWEST_PAIRS:
            raise InputError(
                f"max_items={self.max_items}: a pull is of at least {FEWEST_PAIRS} pairs; 0 is all"
            )
        if self.batch_size < 1:
            raise InputError(f"batch_size={self.batch_size}: must be at least 1")
        if self.prompt_form not in tuple(PromptForm):
            raise InputError(f"prompt_form={self.prompt_form!r}: expected lamp or oppu")


STAGES = ("base", "collective", "directions", "personal")
"""From nothing known to all that is."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(_Flat):
    """What answers a client's questions."""

    stage: str
    """`base`, `collective`, or on top of that `directions` (the release's) or `personal`."""
    slot: str
    """Which personal shift; ignored for other stages."""
    additive: bool
    """How that shift was composed."""
    batch_size: int
    prompt_form: str

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise InputError(f"stage={self.stage!r}: expected one of {', '.join(STAGES)}")
        if self.batch_size < 1:
            raise InputError(f"batch_size={self.batch_size}: must be at least 1")
        if self.prompt_form not in tuple(PromptForm):
            raise InputError(f"prompt_form={self.prompt_form!r}: expected lamp or oppu")
