"""Whether a secret that stands in one item can be told from what leaves, or from a stolen shift.

A code is planted in an item. The attacker knows the item but for the code, and ranks all possible codes.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.simulation.audit.attack import Attack, Role, Trials
from fedperfit.simulation.audit.attacks.items_in_updates import cosines
from fedperfit.simulation.audit.ground import EXACT

_CODES = 50
"""Codes that are possible, the planted one included."""
_UPDATE, _STOLEN, _ALONE, _ELSE = (
    "one update",
    "a stolen shift",
    "the item alone, no codec",
    "an update without a code",
)


class CanaryText(Attack):
    """Exposure of planted codes."""

    name = "canary-text"
    title = "Does a secret in a text get out?"
    meaning = (
        "A person once wrote down a code. Somebody who knows the text around it ranks fifty codes by what an "
        "update, or a stolen shift, says of each."
    )

    def conditions(self) -> dict[str, Role]:
        """Name what is searched for the code, and the controls."""
        return {_UPDATE: Role.ATTACK, _STOLEN: Role.ATTACK, _ALONE: Role.POSITIVE, _ELSE: Role.NULL}

    def subjects(self) -> list[str]:
        """Name the people, as many as shifts are fitted for."""
        return self.ground.names[: self.ground.settings.shift_owners]

    def trials(self, subject: str) -> list[Trials]:
        """Plant a code in one person's latest item, and look for it."""
        ground, count = self.ground, self.ground.settings.items
        items = ground.person(subject).items[:count]
        codes = self._codes(subject)
        versions = ground.examples([self._planted(items[-1], code) for code in codes])
        plain = ground.examples(items)
        planted = [*plain[:-1], versions[0]]
        with_code, without = ground.updates([planted, plain])
        (only,) = ground.updates([versions[:1]], codec=EXACT)
        alone = ground.alone(versions)
        updates = {_UPDATE: with_code, _ALONE: only, _ELSE: without}
        truths = [n == 0 for n in range(_CODES)]
        found = [Trials(name, subject, cosines(alone, update), truths) for name, update in updates.items()]
        return [*found, Trials(_STOLEN, subject, self._told(subject, planted, versions), truths)]

    def _told(self, subject: str, planted: Sequence[Example], versions: Sequence[Example]) -> list[float]:
        """Return how much better a stolen shift answers each version than the base model does."""
        ground = self.ground
        (shift,) = ground.personal([planted], seed=f"canary/{subject}")
        gains: torch.Tensor = ground.losses([ground.bare], versions)[0] - ground.losses([shift], versions)[0]
        scores: list[float] = gains.tolist()
        return scores

    def _codes(self, subject: str) -> list[str]:
        rng = random.Random(f"code of {subject}")
        return [" ".join(map(str, digits)) for digits in _different(rng)]

    def _planted(self, item: Mapping[str, Any], code: str) -> dict[str, Any]:
        field = self.ground.task.field
        return {**item, field: f"{item[field]} The code is {code}."}


def _different(rng: random.Random) -> list[tuple[int, ...]]:
    """Draw codes of four digits, no two alike."""
    codes: dict[tuple[int, ...], None] = {}
    while len(codes) < _CODES:
        codes[tuple(rng.choices(range(10), k=4))] = None
    return list(codes)
