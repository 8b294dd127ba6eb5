"""PerFit and CHAMELEON together: what suits a person is chosen on their own items."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from edge.choice import Acting, Way, choose, losses
from edge.history import History
from protocol.directions import editing
from protocol.tasks import Pair
from simulation.compare.method import Family
from simulation.compare.methods.chameleon import Group
from simulation.compare.methods.perfit import PerFit
from simulation.compare.shifts import stack

ITEMS = 10
"""Of each other user, that directions are found from: as in CHAMELEON's paper."""
COLLECTIVE, DIRECTIONS, PERSONAL = "collective", "directions", "personal"


class ColdStart(PerFit):
    """On the collective shift nothing more, the group's CHAMELEON directions, or a personal shift."""

    name = "perfit-chameleon"
    title = "PerFit + CHAMELEON, chosen per user"
    family = Family.SHIFT
    builds_on = "perfit"
    space = {"identify": ("hybrid", "svd"), "edited": (1, 2)}

    def learn(self, others: Sequence[History]) -> None:
        super().learn(others)
        group = Group(self.bench, {**self.values, "items": ITEMS, "probe": "low-rank", "shown": False})
        group.learn(others)
        self._directions, self._directions_bytes = group.directions_of_group, group.bytes_down()
        pairs = self.bench.sampled(
            [p for other in self.bench.collective_histories(others) for p in self.bench.pairs(other)]
        )
        means = {
            name: float(losses(self.bench.base, pairs, way.fit(pairs)).mean())
            for name, way in self._ways("").items()
            if not way.learns
        }
        self._usual = min(means, key=lambda name: means[name])

    def fit(self, history: History) -> Any:
        pairs = self.bench.pairs(history)
        ways = self._ways(history.name)
        name = choose(self.bench.base, pairs, ways, self._usual)
        return name, ways[name].fit(pairs)

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        _, acting = fitted
        own = acting.shifts[1] if len(acting.shifts) > 1 else None
        edit = acting.directions
        editor = nullcontext() if edit is None else editing(self.bench.base.model, edit)
        with editor:
            prompts = [self.bench.prompt(question) for question in questions]
            return self.bench.answer(prompts, stack(self.bench, [self.shared], own))

    def parameters(self, fitted: Any) -> int:
        return sum(shift.shape.parameters for shift in fitted[1].shifts[1:])

    def bytes_down(self) -> int:
        return super().bytes_down() + self._directions_bytes

    def _ways(self, name: str) -> dict[str, Way]:
        def personal(pairs: Sequence[Pair]) -> Acting:
            return Acting([self.shared, self.personal(pairs, name)])

        ways = {COLLECTIVE: Way(lambda _: Acting([self.shared]), learns=False)}
        if self._directions is not None:
            edit = self._directions.to(self.bench.base.device)
            ways[DIRECTIONS] = Way(lambda _: Acting([self.shared], edit), learns=False)
        ways[PERSONAL] = Way(personal, learns=True)
        return ways
