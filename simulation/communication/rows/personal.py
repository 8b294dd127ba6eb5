"""Rows with a personal part, which a person who took part in nothing fits to own items; it never travels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from fedperfit.protocol.fitting import FittingSettings
from fedperfit.simulation.communication.row import Asked, Family
from fedperfit.simulation.communication.training.adapter_row import AdapterRow
from fedperfit.simulation.communication.training.averaging import load_vector
from fedperfit.simulation.communication.training.shift_row import ShiftRow
from fedperfit.simulation.compare.building_blocks.baseline_training import train
from fedperfit.simulation.compare.building_blocks.shifts import fitted, stack

_SIGN = {"update-basis": "public", "transport-dtype": "sign"}


class PerFitPersonal(ShiftRow):
    """Both stages of PerFit: whole shifts travel, a person's own acts on top of their mean."""

    name = "perfit-personal"
    title = "PerFit and a personal shift: whole shifts, fp32"
    family = Family.PERSONAL
    reference = "perfit-personal"

    def answer(self, people: Sequence[Asked]) -> list[list[str]]:
        """Answer by the collective and the person's own shift."""
        return [self._one(person) for person in people]

    def _one(self, person: Asked) -> list[str]:
        context, job = self.context, self.job()
        prompts = [context.prompt(question) for question in person.questions]
        examples = context.encode(person.history.pairs(context.form, self.settings.personal_items))
        own = None
        if examples:
            shape = replace(job.shape(context.base.card), rank=job.personal().rank)
            training = job.personal_training().replace(learning_rate=self.rates.personal)
            own = fitted(context, examples, shape, training, person.history.name, [self.shift])
        return context.answer(prompts, stack(context, [self.shift], own))


class SignPersonal(PerFitPersonal):
    """The same with one-bit updates in a public basis."""

    name = "sign-personal"
    title = "PerFit and a personal shift: public basis, sign"
    public = True
    update = _SIGN


class FedSaLora(AdapterRow):
    """FedSA-LoRA (Guo et al., 2025): A is averaged, each client's B stays with it.

    Whoever took part in nothing gets the mean A and fits a B of their own, from zero, with A as it is.
    """

    name = "fedsa-lora"
    title = "FedSA-LoRA r=8 and a B of one's own"
    family = Family.PERSONAL
    reference = "perfit-personal"
    averaged = ("lora_A",)

    def answer(self, people: Sequence[Asked]) -> list[list[str]]:
        """Answer by the mean A and the person's own B."""
        return [self._one(person) for person in people]

    def _one(self, person: Asked) -> list[str]:
        context = self.context
        examples = context.encode(person.history.pairs(context.form, self.settings.personal_items))
        with self.model() as model:
            shared, own = self.parameters(model)
            load_vector(shared, self.values)
            for parameter in shared.values():
                parameter.requires_grad_(False)
            model.train()
            if examples:
                self._fit(list(own.values()), examples, person.history.name)
            model.eval()
            return context.answer([context.prompt(question) for question in person.questions])

    def _fit(self, own: list[torch.nn.Parameter], examples: Any, name: str) -> None:
        preset = FittingSettings.of_preset(self.settings.preset)
        train(
            self.context.base,
            own,
            examples,
            epochs=preset.personal_epochs,
            learning_rate=self.rates.personal,
            batch_size=preset.batch_size,
            order=f"{self.context.seed}/{name}",
        )
