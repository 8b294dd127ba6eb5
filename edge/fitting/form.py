"""The form in which a personal shift is fitted on a release: free, in its basis, or under its prior.

A release may carry a frozen basis, in which a person is a few hundred numbers, and a prior over people in it.
Under a prior the likeliest numbers are found, which takes few steps; with more items than the prior is for, a
person is better told by R, W and b of their own.
"""

import random
from collections.abc import Iterator
from enum import Enum
from typing import Any

from fedperfit.edge.engine.people.whitened import Whitened
from fedperfit.edge.engine.training import FitJob
from fedperfit.edge.vault.personal import PersonalCoordinates, PersonalShift
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.people.people import People

_STEPS = 50
"""Steps of a fit under a prior, whatever the number of items."""
_RATE = 0.1
"""Peak learning rate of z, whose unit is the deviation between people."""


class Form(Enum):
    """What is trained for a person."""

    FREE = "free"
    BASIS = "basis"
    PRIOR = "prior"

    @classmethod
    def of(cls, people: People | None, items: int) -> "Form":
        """Choose the form.

        Args:
            people: basis and prior of the release, if it has them.
            items: number of all items of the person, those held out included.
        """
        if people is None:
            return cls.FREE
        if people.prior is None:
            return cls.BASIS
        return cls.PRIOR if items <= people.prior.items else cls.FREE

    def training(self, training: TrainingSettings) -> TrainingSettings:
        """Settings of the fit, given those of a free one."""
        return training.replace(learning_rate=_RATE) if self is Form.PRIOR else training

    def job(self, free: FitJob[PersonalShift], people: People | None, batch_size: int) -> FitJob[Any]:
        """Prepare the fit that takes the place of a free one.

        Args:
            free: job of a new free shift.
            people: basis and prior of the release.
            batch_size: examples of a step, at most.
        """
        if self is Form.FREE or people is None:
            return free
        if self is Form.BASIS:
            return FitJob(PersonalCoordinates.zero(people.basis), free.examples, free.order)
        tokens = sum(len(example.target) for example in free.examples)
        batches = list(_batches(len(free.examples), batch_size, free.order))
        return FitJob(Whitened.start(people, tokens), free.examples, free.order, batches)


def personal_shift(trained: PersonalShift | PersonalCoordinates | Whitened) -> PersonalShift:
    """Return the personal shift that was trained, in whatever form."""
    if isinstance(trained, Whitened):
        return PersonalShift.of_coordinates(trained.coordinates())
    if isinstance(trained, PersonalCoordinates):
        return PersonalShift.of_coordinates(trained)
    return trained


def _batches(examples: int, batch_size: int, order: str) -> Iterator[list[int]]:
    """Draw the examples of each step: all of them, or one shuffle after another cut into batches."""
    rng = random.Random(order)
    waiting: list[int] = []
    for _ in range(_STEPS):
        if len(waiting) < min(batch_size, examples):
            waiting += rng.sample(range(examples), examples)
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]
