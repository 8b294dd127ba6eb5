"""Which items a stolen personal shift was fitted to: by their loss, calibrated, and beside shadow fits.

loss         what the shift was fitted to, it answers better
calibrated   the same, less what the base model answers well by itself
shadows      the attacker fits shifts of its own to half of the possible items, again and again, and learns
             which losses each item has when it is used and when it is not (LiRA, Carlini et al., 2022)
"""

import random
from collections.abc import Sequence

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.simulation.audit.attack import Attack, Role, Trials

_PASSES = 10
"""Times as many epochs as the settings' in the positive control, on few items."""
_FEW = 4
_FLOOR = 1e-3
"""Least variance of an item's losses, in nats squared."""


class StolenItems(Attack):
    """Membership of items in a stolen personal shift."""

    name = "stolen-items"
    title = "Does a stolen personal shift tell which items it was fitted to?"
    meaning = (
        "Somebody has a person's shift, out of a vault that was broken, and a list of texts of which some "
        "are that person's history, and wants to know which."
    )

    def conditions(self) -> dict[str, Role]:
        """Name the three ways, a shift that was fitted to four items for ever, and somebody else's shift."""
        return {
            "loss": Role.ATTACK,
            "calibrated": Role.ATTACK,
            "shadows": Role.ATTACK,
            "four items learned by heart": Role.POSITIVE,
            "another person's shift": Role.NULL,
        }

    def subjects(self) -> list[str]:
        """Name the people, as many as shifts are fitted for."""
        return self.ground.names[: self.ground.settings.shift_owners]

    def trials(self, subject: str) -> list[Trials]:
        """Attack one person's shift."""
        ground, count = self.ground, self.ground.settings.items
        examples = ground.examples(ground.person(subject).items[: 2 * count])
        rng = random.Random(f"used/{subject}")
        used = set(rng.sample(range(2 * count), count))
        truths = [n in used for n in range(2 * count)]
        halves = [set(rng.sample(range(2 * count), count)) for _ in range(ground.settings.shadows)]
        sets = [[examples[n] for n in sorted(half)] for half in (used, *halves)]
        shifts = ground.personal(sets, seed=f"stolen/{subject}")
        losses = ground.losses(shifts, examples)
        bare = ground.losses([ground.bare], examples)[0]
        other = ground.losses([self._stranger(subject)], examples)[0]
        few = ground.losses([self._by_heart(subject, examples)], examples)[0]
        return [
            Trials("loss", subject, (-losses[0]).tolist(), truths),
            Trials("calibrated", subject, (bare - losses[0]).tolist(), truths),
            Trials("shadows", subject, likelihoods(losses[0], losses[1:], halves), truths),
            Trials(
                "four items learned by heart",
                subject,
                (bare - few).tolist(),
                [n < _FEW for n in range(2 * count)],
            ),
            Trials("another person's shift", subject, (bare - other).tolist(), truths),
        ]

    def _stranger(self, subject: str) -> PersonalShift:
        ground = self.ground
        names = ground.names
        other = names[(names.index(subject) + 1) % len(names)]
        items = ground.person(other).items[: ground.settings.items]
        return ground.personal([ground.examples(items)], seed=f"stranger/{subject}")[0]

    def _by_heart(self, subject: str, examples: Sequence[Example]) -> PersonalShift:
        epochs = self.ground.settings.personal_epochs * _PASSES
        return self.ground.personal([examples[:_FEW]], seed=f"heart/{subject}", epochs=epochs)[0]


def likelihoods(losses: torch.Tensor, shadows: torch.Tensor, halves: Sequence[set[int]]) -> list[float]:
    """Return how much likelier each item's loss is if the item was used, as a difference of logarithms.

    Args:
        losses: (items,) losses under the stolen shift.
        shadows: (fits, items) losses under the attacker's own.
        halves: Items that each of those was fitted to.
    """
    inside = torch.tensor([[n in half for n in range(len(losses))] for half in halves])
    both = []
    for side in (inside, ~inside):
        count = side.sum(dim=0).clamp(min=1)
        mean = torch.where(side, shadows, 0.0).sum(dim=0) / count
        spread = (
            torch.where(side, (shadows - mean) ** 2, 0.0).sum() / side.sum()
        )  # one of all items: fits are few
        both.append(
            -((losses - mean) ** 2) / (2 * spread.clamp(min=_FLOOR)) - spread.clamp(min=_FLOOR).log() / 2
        )
    scores: list[float] = (both[0] - both[1]).tolist()
    return scores
