"""Which items an update was made of: each possible item's own update, held against what the cloud sees.

The cloud is honest but curious. It knows model, basis and settings; for an item that it suspects it makes the
update of that item alone and takes the cosine to what it got: one client's update, or the sum of several,
with noise or without.
"""

import random
from collections.abc import Iterator, Sequence

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.simulation.audit.attack import Attack, Role, Trials
from fedperfit.simulation.audit.ground import EXACT, groups

OWN, OTHERS = "own decoys", "others' decoys"
"""Kinds of decoys: unused items of the same person, and of people who take no part."""
_NO_PART = "people who took no part"
_CONTROLS = 8
"""People of the positive control."""


class ItemsInUpdates(Attack):
    """Membership of items in updates and in sums of them."""

    name = "items-in-updates"
    title = "Does an update tell which items a person has?"
    meaning = (
        "The cloud suspects that a person wrote a certain text, and looks for its trace in what it receives: "
        "one person's update, the sum of several, or a sum with noise."
    )

    def conditions(self) -> dict[str, Role]:
        """Name sums by their number of clients, noise and decoys, and the controls."""
        settings = self.ground.settings
        seen = [_sum(size) for size in self._sizes]
        seen += [_noised(size, epsilon) for size in self._sizes for epsilon in settings.noise_epsilons]
        named = {f"{each}, {decoys}": Role.ATTACK for each in seen for decoys in (OWN, OTHERS)}
        nulls = {f"{_NO_PART}, {decoys}": Role.NULL for decoys in (OWN, OTHERS)}
        return named | {"one item, no codec": Role.POSITIVE} | nulls

    @property
    def _sizes(self) -> list[int]:
        """Sums for which there are enough people, and others whose items are decoys."""
        most = len(self.ground.people) - 1
        return [size for size in self.ground.settings.sums if size <= most]

    def subjects(self) -> list[str]:
        """Name the groups of each size, and the people of the positive control."""
        names = self.ground.names
        sums = [f"{size}/{n}" for size in self._sizes for n, _ in enumerate(groups(names, size))]
        return [*sums, *(f"one/{name}" for name in names[:_CONTROLS])]

    def trials(self, subject: str) -> list[Trials]:
        """Attack one group, or one update of a single item."""
        kind, _, which = subject.partition("/")
        if kind == "one":
            return [self._one_item(which)]
        size = int(kind)
        group = list(groups(self.ground.names, size))[int(which)]
        return list(self._group(subject, group))

    def _group(self, subject: str, group: Sequence[str]) -> Iterator[Trials]:
        ground, settings = self.ground, self.ground.settings
        updates = ground.updates([self._used(name) for name in group])
        seen = {_sum(len(group)): ground.summed(updates)}
        for epsilon in settings.noise_epsilons:
            label = f"{subject}/{epsilon}"
            seen[_noised(len(group), epsilon)] = ground.noised(updates, epsilon, label)
        outside = [name for name in ground.names if name not in group]
        rng = random.Random(subject)
        for name in group:
            candidates = {OWN: self._unused(name), OTHERS: self._strangers(outside, rng)}
            used = ground.alone(self._used(name))
            for decoys, examples in candidates.items():
                alone = torch.cat([used, ground.alone(examples)])
                truths = [n < len(used) for n in range(len(alone))]
                for what, update in seen.items():
                    yield Trials(f"{what}, {decoys}", name, cosines(alone, update), truths)
        if len(group) == 1:
            yield from self._no_part(seen[_sum(1)], outside, rng)

    def _no_part(self, update: torch.Tensor, outside: Sequence[str], rng: random.Random) -> Iterator[Trials]:
        """Hold somebody else's items against an update, beside decoys of both kinds."""
        name = rng.choice(outside)
        candidates = {OWN: self._unused(name)}
        others = [other for other in outside if other != name]
        if others:
            candidates[OTHERS] = self._strangers(others, rng)
        for decoys, examples in candidates.items():
            alone = self.ground.alone([*self._used(name), *examples])
            truths = [n < self.ground.settings.items for n in range(len(alone))]
            yield Trials(f"{_NO_PART}, {decoys}", name, cosines(alone, update), truths)

    def _strangers(self, people: Sequence[str], rng: random.Random) -> list[Example]:
        items = self.ground.settings.items
        return [rng.choice(self._used(rng.choice(people))) for _ in range(items)]

    def _one_item(self, name: str) -> Trials:
        examples = [*self._used(name)[:1], *self._unused(name)]
        update = self.ground.updates([examples[:1]], codec=EXACT)[0]
        scores = cosines(self.ground.alone(examples), update)
        return Trials("one item, no codec", name, scores, [n == 0 for n in range(len(examples))])

    def _used(self, name: str) -> list[Example]:
        items = self.ground.settings.items
        return self.ground.examples(self.ground.person(name).items[:items])

    def _unused(self, name: str) -> list[Example]:
        items = self.ground.settings.items
        return self.ground.examples(self.ground.person(name).items[items : 2 * items])


def cosines(alone: torch.Tensor, update: torch.Tensor) -> list[float]:
    """Return the cosine of each row (items, numbers) to an update (numbers,)."""
    scores: list[float] = torch.cosine_similarity(alone.double(), update[None].double()).tolist()
    return scores


def _sum(size: int) -> str:
    return f"sum of {size}" if size > 1 else "one update"


def _noised(size: int, epsilon: float) -> str:
    return f"{_sum(size)}, epsilon {epsilon:g}"
