"""CHAMELEON (Zhang et al., 2025): MLP outputs edited along directions that are found without training."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from safetensors.torch import load, save

from fedperfit.edge.agent.history import History
from fedperfit.edge.chameleon.identify import Edit, Identify, ProbeKind, States, directions
from fedperfit.edge.chameleon.pairs import Reader, candidates, pair_states, selected
from fedperfit.protocol.messages.settings import PairSource
from fedperfit.protocol.shift.directions import Directions, editing
from fedperfit.simulation.compare.building_blocks.prompts import SENTENCES, with_items
from fedperfit.simulation.compare.context import people_digest
from fedperfit.simulation.compare.method import Family, Method

_EDITED = (1, 2, 4)
"""Numbers of layers that are edited, to search among."""


class Chameleon(Method):
    """A user's own directions, from what they wrote against what the bare model says."""

    name = "chameleon"
    title = "CHAMELEON"
    family = Family.STEERING
    space = {
        "items": (5, 10, 15),
        "identify": tuple(Identify),
        "probe": tuple(ProbeKind),
        "edited": _EDITED,
        "shown": (False, True),
    }
    edit = Edit.BOTH
    """Directions that are edited along."""
    source = PairSource.CONTRAST
    """Origin of the preference pairs."""

    def fit(self, history: History) -> Any:
        chosen = self.chosen(history)
        return self.shown(chosen), self.directions([self.states(history, chosen)], history.name)

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        shown, edit = fitted
        prompts = [with_items(self.context, shown, self.context.prompt(q), SENTENCES) for q in questions]
        if edit is None:
            return self.context.answer(prompts)
        with editing(self.context.base.model, edit.to(self.context.base.device)):
            return self.context.answer(prompts)

    def parameters(self, fitted: Any) -> int:
        return 0 if fitted[1] is None else int(fitted[1].parameters)

    @property
    def reader(self) -> Reader:
        """The model as reader of preference pairs."""
        context = self.context
        return Reader(context.base, context.task, context.form, context.answer_batch, context.encoder)

    def chosen(self, history: History) -> list[dict[str, Any]]:
        """Select the items that represent one user; during a search their numbers are kept, and no text."""
        items, every = self.values["items"], candidates(self.context.task, history)

        def make() -> bytes:
            return json.dumps([every.index(item) for item in selected(self.reader, history, items)]).encode()

        about = [history.items, history.answered, items, self.context.encoder]
        return [every[number] for number in json.loads(self._once("chameleon/items", about, make))]

    def states(self, history: History, chosen: Sequence[dict[str, Any]]) -> States:
        """Compute the states of one user's preference pairs; during a search they are made once.

        Args:
            history: The user's history.
            chosen: Items of it that pairs are made of.
        """

        def make() -> bytes:
            return _saved([pair_states(self.reader, chosen, self.source)])

        about = [history.items, history.answered, self.values["items"], self.source, self.context.encoder]
        return _loaded(self._once("chameleon/pairs", about, make))[0]

    def _once(self, name: str, about: Any, make: Callable[[], bytes]) -> bytes:
        """Return what is made: in a search from file, for a user's own fit anew, as its time is measured."""
        return self.context.keep(name, about, make) if self.context.searching else make()

    def shown(self, chosen: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the items that prompts show, if they are to show any."""
        return chosen if self.values["shown"] else []

    def directions(self, people: Sequence[States], about: str) -> Directions | None:
        """Find directions from the pairs of all these people together.

        Args:
            people: States of each person's pairs.
            about: Name that seeds the probe.

        Returns:
            The directions, or None where there are too few pairs.
        """
        return directions(
            people,
            identify=Identify(self.values["identify"]),
            probe=ProbeKind(self.values["probe"]),
            edit=self.edit,
            edited=self.values["edited"],
            seed=self.context.number(about, "probe"),
        )


class ByInsights(Chameleon):
    """CHAMELEON with the paper's own pairs: two outputs of the model, under insights it wrote."""

    name = "chameleon-insights"
    title = "CHAMELEON, pairs by insights"
    builds_on = "chameleon"
    space = {}
    source = PairSource.INSIGHTS


class PersonalizedOnly(Chameleon):
    """CHAMELEON's ablation with only the gain along the personalized direction."""

    name = "chameleon-personalized"
    title = "CHAMELEON, personalized direction only"
    builds_on = "chameleon"
    space = {}
    edit = Edit.PERSONALIZED


class NeutralOnly(PersonalizedOnly):
    """CHAMELEON's ablation with only the loss along the neutral direction."""

    name = "chameleon-neutral"
    title = "CHAMELEON, neutral direction only"
    edit = Edit.NEUTRAL


class Group(Chameleon):
    """CHAMELEON's group directions, from the others' pairs and the user's own together.

    Attributes:
        directions_of_group: Directions from the others' pairs alone; None where there are too few.
    """

    name = "chameleon-group"
    title = "CHAMELEON, group"
    collective = True
    builds_on = "chameleon"
    space = {"identify": tuple(Identify), "probe": tuple(ProbeKind), "edited": _EDITED}

    def learn(self, others: Sequence[History]) -> None:
        others = self.context.collective_histories(others)
        about = [self.values["items"], people_digest(others), self.context.encoder]

        def make() -> bytes:
            return _saved([self.states(other, self.chosen(other)) for other in others])

        self._others = _loaded(self.context.keep("collective/pairs", about, make))
        self.directions_of_group = self.directions(self._others, "group")

    def fit(self, history: History) -> Any:
        chosen = self.chosen(history)
        people = [*self._others, self.states(history, chosen)]
        return self.shown(chosen), self.directions(people, "group")

    def bytes_down(self) -> int:
        return 0 if self.directions_of_group is None else len(self.directions_of_group.to_bytes())


class Unseen(Group):
    """CHAMELEON's group directions for a user of whom nothing is in them: the paper's unseen users."""

    name = "chameleon-unseen"
    title = "CHAMELEON, group, user unseen"
    builds_on = "chameleon-group"
    space = {}

    def fit(self, history: History) -> Any:
        return [], self.directions_of_group

    def parameters(self, fitted: Any) -> int:
        return 0


def _saved(people: Sequence[States]) -> bytes:
    sides = {"personalized": [one.personalized for one in people], "neutral": [one.neutral for one in people]}
    return save(
        {
            f"{side}-{number:04}": states.contiguous()
            for side, several in sides.items()
            for number, states in enumerate(several)
        }
    )


def _loaded(data: bytes) -> list[States]:
    tensors = load(data)
    numbers = sorted(name.rpartition("-")[2] for name in tensors if name.startswith("neutral"))
    return [States(tensors[f"personalized-{number}"], tensors[f"neutral-{number}"]) for number in numbers]
