"""Whose shift a found personal shift is, by the start that a name would have given it."""

import random
from collections.abc import Sequence

import torch

from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.simulation.audit.attack import Attack, Role, Trials
from fedperfit.simulation.audit.edges import Edges

_NAMES = 40
"""Names that an attacker tries, the true one included."""
_SALTED, _PLAIN, _NOBODY = "start under the edge's secret", "start made of the name alone", "nobody's names"


class OwnerName(Attack):
    """The start of a personal shift, drawn as the edge's agent draws it, after training."""

    name = "owner-name"
    title = "Does a stolen personal shift name its owner?"
    meaning = (
        "Somebody finds a personal shift on a lost disk, and tries for each of 40 names whether its training "
        "began where that name would have let it begin."
    )

    def conditions(self) -> dict[str, Role]:
        """Name the edge's way to start, one that a name alone decides, and names that nobody has."""
        return {_SALTED: Role.ATTACK, _PLAIN: Role.POSITIVE, _NOBODY: Role.NULL}

    def subjects(self) -> list[str]:
        """Name the people, as many as shifts are fitted for."""
        return self.ground.names[: self.ground.settings.shift_owners]

    def trials(self, subject: str) -> list[Trials]:
        """Fit one person's shift from both starts, and compare it with the starts of all names."""
        edges = Edges(self.ground)
        rng = random.Random(f"names/{subject}")
        salted, plain = (edges.fitted(subject, salt=salt) for salt in (rng.randbytes(16).hex(), ""))
        nobody = [edges.start(f"nobody-{number}") for number in range(_NAMES)]
        starts, truths = [edges.start(subject), *nobody[1:]], [n == 0 for n in range(_NAMES)]
        lot = rng.randrange(_NAMES)
        return [
            Trials(_SALTED, subject, _fits(salted, starts), truths),
            Trials(_PLAIN, subject, _fits(plain, starts), truths),
            Trials(_NOBODY, subject, _fits(plain, nobody), [n == lot for n in range(_NAMES)]),
        ]


def _fits(shift: PersonalShift, starts: Sequence[PersonalShift]) -> list[float]:
    R: torch.Tensor = shift.R.detach()
    return [float((R * start.R.detach()).sum()) for start in starts]
