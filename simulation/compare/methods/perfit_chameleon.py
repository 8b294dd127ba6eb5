"""PerFit and CHAMELEON together: the stage that suits a user is chosen on their own items."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from fedperfit.edge.agent.history import History
from fedperfit.edge.fitting.choice import Candidate, Examples, Intervention, choose, losses
from fedperfit.protocol.shift.directions import editing
from fedperfit.simulation.compare.building_blocks.shifts import stack
from fedperfit.simulation.compare.method import Family
from fedperfit.simulation.compare.methods.chameleon import Group
from fedperfit.simulation.compare.methods.perfit import PerFit

ITEMS = 10
"""Items of each other user that directions are found from, as in CHAMELEON's paper."""
COLLECTIVE, DIRECTIONS, PERSONAL = "collective", "directions", "personal"


class ColdStart(PerFit):
    """PerFit's collective shift, with nothing more, the group's CHAMELEON directions, or a personal shift."""

    name = "perfit-chameleon"
    title = "PerFit + CHAMELEON, chosen per user"
    family = Family.SHIFT
    builds_on = "perfit"
    space = {"identify": ("hybrid", "svd"), "edited": (1, 2)}

    def learn(self, others: Sequence[History]) -> None:
        super().learn(others)
        group = Group(self.context, {**self.values, "items": ITEMS, "probe": "low-rank", "shown": False})
        group.learn(others)
        self._directions, self._directions_bytes = group.directions_of_group, group.bytes_down()
        pairs = self.context.sampled(
            [p for other in self.context.collective_histories(others) for p in self.context.pairs(other)]
        )
        examples = self.context.encode(pairs)
        means = {n: float(losses(self.context.base, examples, a).mean()) for n, a in self._fixed().items()}
        self._without_items = min(means, key=lambda name: means[name])

    def fit(self, history: History) -> Any:
        examples = self.context.encode(self.context.pairs(history))
        fixed = self._fixed()

        def learn(units: Sequence[Examples]) -> list[Intervention]:
            return [Intervention([self.shared, self.personal(unit, history.name)]) for unit in units]

        candidates = {name: Candidate.fixed(intervention) for name, intervention in fixed.items()}
        candidates[PERSONAL] = Candidate(learn, learns=True)
        usual = PERSONAL if examples else self._without_items
        chosen = choose(self.context.base, examples, candidates, usual).name
        return chosen, fixed[chosen] if chosen in fixed else learn([examples])[0]

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        _, intervention = fitted
        own = intervention.shifts[1] if len(intervention.shifts) > 1 else None
        edit = intervention.directions
        editor = nullcontext() if edit is None else editing(self.context.base.model, edit)
        with editor:
            prompts = [self.context.prompt(question) for question in questions]
            return self.context.answer(prompts, stack(self.context, [self.shared], own))

    def parameters(self, fitted: Any) -> int:
        return sum(shift.shape.parameters for shift in fitted[1].shifts[1:])

    def bytes_down(self) -> int:
        return super().bytes_down() + self._directions_bytes

    def _fixed(self) -> dict[str, Intervention]:
        """Return the interventions that need nothing of the user's own, by name."""
        intervention = {COLLECTIVE: Intervention([self.shared])}
        if self._directions is not None:
            intervention[DIRECTIONS] = Intervention(
                [self.shared], self._directions.to(self.context.base.device)
            )
        return intervention
