"""The form in which a personal shift is fitted: free, in a basis, under a prior, or under noise.

A release may carry a frozen basis, in which a person is a few hundred numbers, and a prior over people in it.
Under a prior the likeliest numbers are found, which takes few passes; with more items than the prior is for,
R, W and b of a person's own are better, or items that are held out decide (`edge.agent.giving_way`). Somebody
who fears for single items has the numbers in the basis fitted under noise, with a promise of differential
privacy for each item.
"""

import math
from enum import Enum
from typing import Any

from fedperfit.edge.engine.people.private import NoisySteps, Private
from fedperfit.edge.engine.people.whitened import Whitened
from fedperfit.edge.engine.training import FitJob
from fedperfit.edge.vault.personal import PersonalCoordinates, PersonalShift
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.people.people import People
from fedperfit.protocol.privacy.gaussian import epsilon_of_mu, least
from fedperfit.protocol.system.errors import InputError

_PRIVATE_STEPS = 10
_PRIVATE_RATE = 100.0
"""Rate of a private fit, in rates of the free one. Like steps and norm chosen on people of another world."""
_LARGEST_NORM = 1.0
DELTA = 1e-3
"""Delta of the promise for each item; a person has tens to hundreds of them."""


class Form(Enum):
    """What is trained for a person."""

    FREE = "free"
    BASIS = "basis"
    PRIOR = "prior"
    PRIVATE = "private"
    HELD_OUT = "held-out"
    """Free or under the prior, which items held out of both decide."""

    @property
    def fits(self) -> int:
        """Number of fits that it takes, one after the other."""
        return 3 if self is Form.HELD_OUT else 1

    @classmethod
    def of(cls, people: People | None, items: int, epsilon: float = 0.0) -> "Form":
        """Choose the form.

        Args:
            people: basis and prior of the release, if it has them.
            items: number of all items of the person, those held out included.
            epsilon: differential privacy that the owner wants for each item; 0 wants none.

        Raises:
            InputError: privacy is wanted, and the release has no basis.
        """
        if epsilon and people is None:
            raise InputError(
                f"personal-epsilon={epsilon:g}: the release has no basis for personal shifts; a run with "
                "personal-basis=update makes one"
            )
        if epsilon:
            return cls.PRIVATE
        if people is None:
            return cls.FREE
        if people.prior is None:
            return cls.BASIS
        if items <= people.prior.items:
            return cls.PRIOR
        return cls.FREE if people.prior.gives_way == "items" else cls.HELD_OUT

    def job(
        self,
        free: FitJob[PersonalShift],
        people: People | None,
        training: TrainingSettings,
        epsilon: float = 0.0,
    ) -> FitJob[Any]:
        """Prepare the fit that takes the place of a free one.

        Args:
            free: job of a new free shift.
            people: basis and prior of the release.
            training: settings of the free fit.
            epsilon: as in `of`.
        """
        assert self is not Form.HELD_OUT
        if self is Form.FREE or people is None:
            return free
        if self is Form.PRIVATE:
            start = PersonalCoordinates.zero(people.basis)
            return FitJob(Private(start, noisy_steps(epsilon, training)), free.examples, free.order)
        if self is Form.BASIS:
            return FitJob(PersonalCoordinates.zero(people.basis), free.examples, free.order)
        return FitJob(Whitened.start(people), free.examples, free.order)


def noisy_steps(epsilon: float, training: TrainingSettings) -> NoisySteps:
    """Return the steps of a private fit, with the least noise that keeps a promise.

    Args:
        epsilon: Epsilon of the promise at `DELTA`.
        training: Settings of the free fit, which tell how long its steps are.
    """
    mu = 1 / least(lambda noise: noise > 0 and epsilon_of_mu(1 / noise, DELTA) <= epsilon)
    rate = _PRIVATE_RATE * training.learning_rate
    return NoisySteps(_PRIVATE_STEPS, rate, math.sqrt(_PRIVATE_STEPS) / mu, _LARGEST_NORM)


def personal_shift(trained: PersonalShift | PersonalCoordinates | Whitened | Private) -> PersonalShift:
    """Return the personal shift that was trained, in whatever form."""
    if isinstance(trained, Private):
        return PersonalShift.of_coordinates(trained.coordinates)
    if isinstance(trained, Whitened):
        return PersonalShift.of_coordinates(trained.coordinates())
    if isinstance(trained, PersonalCoordinates):
        return PersonalShift.of_coordinates(trained)
    return trained
