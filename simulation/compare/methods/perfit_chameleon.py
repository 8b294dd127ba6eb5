"""PerFit and CHAMELEON together: what suits a person is chosen on their own items."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from fedperfit.edge.agent.choice import Acting, Examples, Way, choose, losses
from fedperfit.edge.agent.history import History
from fedperfit.protocol.shift.directions import editing
from fedperfit.simulation.compare.method import Family
from fedperfit.simulation.compare.methods.chameleon import Group
from fedperfit.simulation.compare.methods.perfit import PerFit
from fedperfit.simulation.compare.shifts import stack

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
        examples = self.bench.encode(pairs)
        means = {n: float(losses(self.bench.base, examples, a).mean()) for n, a in self._fixed().items()}
        self._without_items = min(means, key=lambda name: means[name])

    def fit(self, history: History) -> Any:
        examples = self.bench.encode(self.bench.pairs(history))
        fixed = self._fixed()

        def learn(lots: Sequence[Examples]) -> list[Acting]:
            return [Acting([self.shared, self.personal(lot, history.name)]) for lot in lots]

        ways = {name: Way.fixed(acting) for name, acting in fixed.items()}
        ways[PERSONAL] = Way(learn, learns=True)
        usual = PERSONAL if examples else self._without_items
        chosen = choose(self.bench.base, examples, ways, usual).name
        return chosen, fixed[chosen] if chosen in fixed else learn([examples])[0]

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

    def _fixed(self) -> dict[str, Acting]:
        """What acts without anything of the person's own."""
        acting = {COLLECTIVE: Acting([self.shared])}
        if self._directions is not None:
            acting[DIRECTIONS] = Acting([self.shared], self._directions.to(self.bench.base.device))
        return acting
