"""PerFit in a frozen basis: votes of one bit a number, and people of few numbers."""

from collections.abc import Sequence
from typing import Any, ClassVar

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.people.whitened import Whitened
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.protocol.people.people import People
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.shift import Shift
from fedperfit.simulation.compare.building_blocks.coordinates import (
    LAYERS,
    clients_of,
    others_basis,
    others_prior,
    voted,
)
from fedperfit.simulation.compare.building_blocks.shifts import (
    COLLECTIVE_RANKS,
    PERSONAL_EPOCHS,
    RATES,
    settings,
)
from fedperfit.simulation.compare.method import LogUniform
from fedperfit.simulation.compare.methods.perfit import PerFit


class InBasis(PerFit):
    """PerFit whose stages move coordinates in a basis that the others' gradients and states show.

    Attributes:
        people: The basis, and the prior over people where there is one.
    """

    name = "perfit-basis"
    title = "PerFit in a basis, by votes"
    builds_on: ClassVar[str | None] = None
    space = {
        "layers": tuple(LAYERS),
        "positions": ("l7", "f7+l7"),
        "rank": COLLECTIVE_RANKS,
        "columns": (8, 16),
        "learning-rate": RATES,
        "personal-epochs": PERSONAL_EPOCHS,
        "personal-learning-rate": RATES,
    }

    def learn(self, others: Sequence[History]) -> None:
        others = self.context.collective_histories(others)
        basis = others_basis(self.context, others, self.values)
        state = voted(self.context, others, basis, self.values["learning-rate"])
        self.people = self.known(others, People(basis))
        self.shared = state.shift().requires_grad_(False).to(self.context.base.device)
        self._bytes = 4 * basis.numbers + len(self.people.to_bytes())

    def known(self, others: Sequence[History], people: People) -> People:
        """Return what is known of how people differ, in a basis: nothing here.

        Args:
            others: People who are no targets.
            people: The basis alone.
        """
        return people

    def personal(self, examples: Sequence[Example], name: str) -> Shift:
        own = Coordinates.zero(self.people.basis)
        training = settings(
            self.context, self.values["personal-epochs"], self.values["personal-learning-rate"]
        )
        job = FitJob(own, examples, f"{self.context.seed}/{name}")
        fit([job], training, self.context.items, frozen=[self.shared], decay_rate=True)
        return own.shift().requires_grad_(False)

    def parameters(self, fitted: Any) -> int:
        return 0 if fitted[1] is None else self.people.basis.numbers


class UnderPrior(InBasis):
    """The likeliest coordinates under a prior over people, if two or more others show one."""

    name = "perfit-prior"
    title = "PerFit in a basis, under a prior"
    builds_on = "perfit-basis"
    space = {"strength": LogUniform(0.03, 40)}
    numbers: ClassVar[int] = 0
    """Numbers of a person at most; 0 is all of the basis."""

    def known(self, others: Sequence[History], people: People) -> People:
        if len(clients_of(self.context, others)) < 2:
            return people
        rate, strength = self.values["learning-rate"], self.values["strength"]
        return others_prior(self.context, others, people.basis, rate, strength=strength, numbers=self.numbers)

    def personal(self, examples: Sequence[Example], name: str) -> Shift:
        if self.people.prior is None:
            return super().personal(examples, name)
        own = Whitened.start(self.people)
        job = FitJob(own, examples, f"{self.context.seed}/{name}")
        fit([job], settings(self.context, 1, 1.0), self.context.items, frozen=[self.shared])
        return own.coordinates().shift().requires_grad_(False)

    def parameters(self, fitted: Any) -> int:
        known = self.people.prior is not None and fitted[1] is not None
        return self.people.factor().shape[1] if known else super().parameters(fitted)


class Sixteen(UnderPrior):
    """Sixteen numbers a person at most, along the directions in which the others differ most."""

    name = "perfit-sixteen"
    title = "PerFit in a basis, at most 16 numbers"
    builds_on = "perfit-prior"
    space = {}
    numbers = 16
