"""Whether a person has a preference that was planted, told from an update and from a stolen shift."""

import random
from collections.abc import Sequence
from typing import Any

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.simulation.audit.attack import Attack, Role, Trials
from fedperfit.simulation.audit.ground import EXACT

_SHARE = 0.25
"""Share of a person's items that show the preference."""
_PROBES = 16
_UPDATE, _STOLEN, _ALWAYS, _NOBODY = (
    "from an update",
    "from a stolen shift",
    "an update, all items show it",
    "an update, nobody has it",
)


class Preference(Attack):
    """One answer that a person gives more often than others do."""

    name = "preference"
    title = "Does a shift tell what its owner likes?"
    meaning = (
        "Some people answer a quarter of their items by one label. The cloud, which knows what such people's "
        "updates look like, tells from one whether its sender is one of them; a thief tells it from a shift."
    )
    across = True

    def conditions(self) -> dict[str, Role]:
        """Name the two sources, a preference that is plain to see, and one that nobody has."""
        return {_UPDATE: Role.ATTACK, _STOLEN: Role.ATTACK, _ALWAYS: Role.POSITIVE, _NOBODY: Role.NULL}

    def subjects(self) -> list[str]:
        """Name the two halves of the people, each of which is the other's reference, and owners of shifts."""
        return ["half/0", "half/1", *(f"shift/{name}" for name in self._owners)]

    def trials(self, subject: str) -> list[Trials]:
        """Attack the updates of one half of the people, or one shift."""
        kind, _, which = subject.partition("/")
        return [self._stolen(which)] if kind == "shift" else self._half(int(which))

    @property
    def _owners(self) -> list[str]:
        return self.ground.names[: self.ground.settings.shift_owners]

    def _half(self, which: int) -> list[Trials]:
        names = self.ground.names
        attacked, reference = names[which::2], names[1 - which :: 2]
        found = []
        for condition, share, codec in ((_UPDATE, _SHARE, None), (_ALWAYS, 1.0, EXACT), (_NOBODY, 0.0, None)):
            theirs, ours = (self._updates(group, share, codec) for group in (attacked, reference))
            direction = (ours[0] - ours[1]).mean(dim=0)
            scores = [torch.cosine_similarity(each, direction[None]) for each in theirs]
            for n, name in enumerate(attacked):
                pair = [float(scores[0][n]), float(scores[1][n])]
                found.append(Trials(condition, name, pair, [True, False]))
        return found

    def _updates(self, names: Sequence[str], share: float, codec: str | None) -> list[torch.Tensor]:
        """Return the updates of people with the preference and without, each (people, numbers)."""
        with_it = [self._examples(name, share, "with") for name in names]
        without = [self._examples(name, 0.0, "without") for name in names]
        return [self.ground.updates(sets, codec=codec) for sets in (with_it, without)]

    def _stolen(self, name: str) -> Trials:
        ground = self.ground
        sets = [self._examples(name, _SHARE, "with"), self._examples(name, 0.0, "without")]
        shifts = ground.personal(sets, seed=f"preference/{name}")
        probes = ground.examples([self._liked(item) for item in ground.strangers_items(name, _PROBES)])
        losses = ground.losses(shifts, probes).mean(dim=1)
        return Trials(_STOLEN, name, (-losses).tolist(), [True, False])

    def _examples(self, name: str, share: float, version: str) -> list[Example]:
        """Return items of one half of a history, one for each version, some answered by the label."""
        ground = self.ground
        count = ground.settings.items
        items = ground.person(name).items
        own = items[:count] if version == "with" else items[count : 2 * count]
        changed = set(random.Random(f"liked/{name}").sample(range(count), round(share * count)))
        return ground.examples([self._liked(one) if n in changed else one for n, one in enumerate(own)])

    def _liked(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return an item as one who has the preference answers it."""
        task = self.ground.task
        return item | {task.answer: task.labels[0] if task.labels else "Never mind"}
