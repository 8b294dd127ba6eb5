"""Whether two personal shifts are one person's, by how they answer the same questions."""

from collections.abc import Sequence

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.simulation.audit.attack import Attack, Role, Trials

_PROBES = 48
"""Texts of other people that both shifts are asked about."""


class Linkage(Attack):
    """Two shifts fitted to the two halves of one history, found among those of everybody else."""

    name = "linkage"
    title = "Do two shifts of one person betray each other?"
    meaning = (
        "Somebody has two heaps of stolen personal shifts, say of two services, and wants to know which two "
        "belong to the same person, by asking all of them the same questions."
    )

    def conditions(self) -> dict[str, Role]:
        """Name shifts of two halves of a history, of the same half, and of different people."""
        return {
            "shifts of different items": Role.ATTACK,
            "shifts of the same items": Role.POSITIVE,
            "shifts of different people": Role.NULL,
        }

    def subjects(self) -> list[str]:
        """Name all people as one: each is compared with the others."""
        return ["everybody"]

    def trials(self, subject: str) -> list[Trials]:
        """Fit three shifts for each person, and compare all pairs."""
        ground = self.ground
        count, owners = ground.settings.items, ground.names[: ground.settings.shift_owners]
        items = [ground.person(name).items for name in owners]
        first = [ground.examples(each[:count]) for each in items]
        second = [ground.examples(each[count : 2 * count]) for each in items]
        heaps = [
            self._behaviour(examples, heap)
            for heap, examples in (("first", first), ("again", first), ("second", second))
        ]
        places = {name: n for n, name in enumerate(owners)}
        found = []
        for name, place in places.items():
            there = [n == place for n in range(len(owners))]
            next_one = [n == (place + 1) % len(owners) for n in range(len(owners))]
            alike = [_alike(heaps[0][place], other) for other in heaps[1:]]
            found += [
                Trials("shifts of different items", name, alike[1], there),
                Trials("shifts of the same items", name, alike[0], there),
                Trials("shifts of different people", name, alike[1], next_one),
            ]
        return found

    def _behaviour(self, sets: Sequence[Sequence[Example]], heap: str) -> torch.Tensor:
        """Return what each shift changes in the losses of the probes, less what all change: (shifts, n)."""
        ground = self.ground
        shifts = ground.personal(sets, seed=f"linkage/{heap}")
        losses = ground.losses(shifts, self._probes())
        return losses - losses.mean(dim=0)

    def _probes(self) -> list[Example]:
        ground = self.ground
        return ground.examples(ground.strangers_items("", _PROBES))


def _alike(one: torch.Tensor, others: torch.Tensor) -> list[float]:
    scores: list[float] = torch.cosine_similarity(one[None], others).tolist()
    return scores
