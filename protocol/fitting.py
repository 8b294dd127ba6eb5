"""The settings of personal shifts: what they are and how they are fitted, by hand and in a run."""

from collections.abc import Mapping
from typing import Any, Self

from fedperfit.protocol.messages.settings import FULL_SLOT, PersonalSettings, TrainingSettings
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.fields import (
    AUTO,
    Additive,
    Auto,
    BatchSize,
    ClipNorm,
    Epochs,
    Items,
    LearningRate,
    PromptStyle,
    Rank,
    Seed,
    WeightDecay,
)
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import PromptForm

TO_BE_CHOSEN = "chosen in a run, from what its clients tell; give a value here"


class FittingSettings(Settings):
    """What a person's own shift is, and how it is fitted."""

    personal_rank: Rank | Auto
    """Rank of the personal shift; `auto`: the least that holds 50 % of the gradients' energy."""
    additive: Additive = False
    personal_epochs: Epochs
    """Passes over a person's items when the personal shift is fitted."""
    personal_learning_rate: LearningRate
    """Peak rate of the personal fit, about 1e-4 for a 7B model; it falls linearly to a tenth."""
    personal_max_items: Items = 0
    """A person's latest items to fit on, at most; 0 is all."""
    batch_size: BatchSize
    weight_decay: WeightDecay = 0.01
    clip_norm: ClipNorm = 0.3
    prompt_form: PromptStyle = PromptForm.LAMP
    seed: Seed = 0

    @classmethod
    def of_preset(cls, preset: str, overrides: Mapping[str, Any] | None = None) -> Self:
        """The values of this group in a preset, with `overrides` on top; other groups' are left alone.

        Args:
            preset: One that ships, by name, or a TOML file.
            overrides: Values by key.

        Raises:
            InputError: The preset is unknown, lacks a setting, or a value is not allowed.
        """
        return cls.from_some(read_preset(preset) | dict(overrides or {}))

    def personal_training(self, *, max_items: int | None = None) -> TrainingSettings:
        """How the personal shift is trained.

        Args:
            max_items: Latest items to train on, at most, in place of the setting.
        """
        return TrainingSettings(
            seed=self.seed,
            epochs=self.personal_epochs,
            batch_size=self.batch_size,
            learning_rate=self.personal_learning_rate,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            max_items=self.personal_max_items if max_items is None else max_items,
            prompt_form=self.prompt_form,
        )

    def personal(self, slot: str = FULL_SLOT) -> PersonalSettings:
        """The personal shift that a client keeps in `slot`.

        Raises:
            InputError: The rank is still to be chosen.
        """
        return PersonalSettings(
            rank=chosen_rank("personal-rank", self.personal_rank), additive=self.additive, slot=slot
        )


def chosen_rank(key: str, rank: int | Auto) -> int:
    """A rank that has been chosen.

    Raises:
        InputError: It is still `auto`.
    """
    if rank == AUTO:
        raise InputError(f"{key}={AUTO}: {TO_BE_CHOSEN}")
    return rank
