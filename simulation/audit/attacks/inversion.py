"""What a person wrote, word by word: each word of an item guessed from an update, all others given.

The reader is generous: it knows the item but for one token, and for each candidate makes the update that the
item would give, and takes the cosine to what it got.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from fedperfit.edge.engine.examples import Example
from fedperfit.simulation.audit.attack import Attack, Role, Trials
from fedperfit.simulation.audit.attacks.items_in_updates import cosines
from fedperfit.simulation.audit.edges import Edges
from fedperfit.simulation.audit.ground import EXACT

_PLACES, _CANDIDATES = 3, 20
"""Tokens of an item that are guessed, and candidates for each, the true one included."""
_AGREED, _GREEDY, _FREE, _OTHER = (
    "what was agreed",
    "one item, asked under the policy",
    "one item, without policy and codec",
    "another person's update",
)


class Inversion(Attack):
    """Inversion of updates to text."""

    name = "inversion"
    title = "Can a person's words be read out of an update?"
    meaning = (
        "The cloud tries to read a person's text out of the update, token by token, and is even given the "
        "rest of it. It also asks for an update of one item alone, which the edge's policy must refuse."
    )

    def conditions(self) -> dict[str, Role]:
        """Name what the cloud gets as agreed and by a greedy request, and the controls."""
        return {_AGREED: Role.ATTACK, _GREEDY: Role.ATTACK, _FREE: Role.POSITIVE, _OTHER: Role.NULL}

    def subjects(self) -> list[str]:
        """Name the people, as many as texts are read of."""
        return self.ground.names[: self.ground.settings.shift_owners]

    def trials(self, subject: str) -> list[Trials]:
        """Read the first item of one person."""
        ground = self.ground
        names, count = ground.names, ground.settings.items
        other = names[(names.index(subject) + 1) % len(names)]
        own, others = (ground.examples(ground.person(name).items[:count]) for name in (subject, other))
        read = own[0]
        agreed, foreign = ground.updates([own, others])
        updates = {
            _AGREED: agreed,
            _GREEDY: Edges(ground).greedy_update(subject),
            _FREE: ground.updates([[read]], codec=EXACT)[0],
            _OTHER: foreign,
        }
        rng = random.Random(f"inversion/{subject}")
        found = []
        for place in rng.sample(self._places(own), _PLACES):
            versions = self._versions(read, place, rng)
            alone = ground.alone(versions)
            truths = [n == 0 for n in range(len(versions))]
            for condition, update in updates.items():
                scores = [0.0] * len(versions) if update is None else cosines(alone, update)
                found.append(Trials(condition, subject, scores, truths))
        return found

    def _places(self, examples: Sequence[Example]) -> list[int]:
        """List the places of the person's own words in the prompt of the first example."""
        first, last = examples[1].prompt, examples[0].prompt
        length = min(len(first), len(last))
        start = next(n for n in range(length) if first[n] != last[n])
        end = next(n for n in range(1, length) if first[-n] != last[-n])
        return list(range(start, len(last) - end + 1))

    def _versions(self, example: Example, place: int, rng: random.Random) -> list[Example]:
        """Return the example, and versions of it with other tokens at one place."""
        truth = example.prompt[place]
        tokens = [token for token in self.ground.own_tokens if token != truth]
        others = rng.sample(tokens, _CANDIDATES - 1)
        before, after = example.prompt[:place], example.prompt[place + 1 :]
        return [replace(example, prompt=(*before, token, *after)) for token in (truth, *others)]
