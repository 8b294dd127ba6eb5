"""Movie tagging (LaMP-2M): a description cues three tags, and the user's taste decides on one."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.world.lexicon import (
    ADJECTIVES,
    CUES,
    FIRST_NAMES,
    PEOPLE,
    SETTINGS,
    SURNAMES,
    TIMES,
    TOWNS,
)
from fedperfit.simulation.world.orders import favourites, order_probabilities
from fedperfit.simulation.world.world_task import WorldItem, WorldTask, polish

CUED = 3
"""Tags that one description cues."""
SHELF = 8
"""Tags among the films that one user watches."""
NOISE = 0.03
"""Share of answers drawn at random from the cued tags."""
POPULARITY_SPREAD = 0.7
"""Standard deviation of tags' mean liking in the population, and of the community's deviation from it."""
TASTE_SPREAD = 1.5
"""Standard deviation of a user's liking about the group's mean."""

_OPENINGS = (
    "a {adjective} {person} named {name} returns to {town} in {time}.",
    "in {town}, a {adjective} {person} meets {name} {surname}.",
    "{name} {surname}, a {adjective} {person}, spends one {time} in a {setting}.",
    "one {time}, a {adjective} {person} arrives at the {setting} near {town}.",
    "the story follows {name}, a {adjective} {person} from {town}.",
)
_CUE_SENTENCES = (
    "there are {cue} and {cue} before the {time} ends.",
    "everyone remembers the {cue} and then the {cue}.",
    "soon {cue} and {cue} change the {setting}.",
    "it is full of {cue}, with {cue} too.",
    "{name} finds {cue} and later {cue}.",
)


@dataclass(frozen=True)
class TagTaste:
    """A user's liking of each tag, and the tags of the films they watch."""

    liking: tuple[float, ...]
    shelf: tuple[int, ...]


class Tagging(WorldTask[TagTaste, tuple[int, ...]]):
    """The tagging task; an item's cues are three tags, of which the user gives the one they like best."""

    task = "LaMP_2M"

    @cached_property
    def _tags(self) -> tuple[str, ...]:
        return TASKS[self.task].labels

    @cached_property
    def _leanings(self) -> dict[bool, tuple[float, ...]]:
        """Mean liking of each tag, by whether it is the community's or the population's."""
        rng = random.Random("tag popularity")
        population = tuple(rng.gauss(0, POPULARITY_SPREAD) for _ in self._tags)
        community = tuple(liking + rng.gauss(0, POPULARITY_SPREAD) for liking in population)
        return {False: population, True: community}

    def taste(self, rng: random.Random, *, community: bool) -> TagTaste:
        liking = tuple(mean + rng.gauss(0, TASTE_SPREAD) for mean in self._leanings[community])
        return TagTaste(liking, tuple(sorted(rng.sample(range(len(self._tags)), SHELF))))

    def item(self, rng: random.Random, taste: TagTaste) -> WorldItem[tuple[int, ...]]:
        cued = rng.sample(taste.shelf, CUED)
        words = [word for tag in cued for word in rng.sample(CUES[self._tags[tag]], 2)]
        rng.shuffle(words)
        sentences = [rng.choice(_OPENINGS), *rng.sample(_CUE_SENTENCES, CUED)]
        text = " ".join(sentences)
        for word in words:
            text = text.replace("{cue}", word, 1)
        text = text.format(
            adjective=rng.choice(ADJECTIVES),
            person=rng.choice(PEOPLE),
            name=rng.choice(FIRST_NAMES),
            surname=rng.choice(SURNAMES),
            town=rng.choice(TOWNS),
            time=rng.choice(TIMES),
            setting=rng.choice(SETTINGS),
        )
        return WorldItem(polish(text), tuple(sorted(cued)))

    def answer(self, rng: random.Random, taste: TagTaste, cues: tuple[int, ...]) -> str:
        return self._tags[rng.choice(cues)] if rng.random() < NOISE else self.best(taste, cues)

    def best(self, taste: TagTaste, cues: tuple[int, ...]) -> str:
        return self._tags[max(cues, key=lambda tag: taste.liking[tag])]

    def best_unknown(self, cues: tuple[int, ...], *, community: bool) -> str:
        """Return the tag liked best on average; as likings have one spread, it is the one most users give."""
        return self._tags[max(cues, key=lambda tag: self._leanings[community][tag])]

    def best_after(
        self,
        seen: Sequence[tuple[tuple[int, ...], str]],
        questions: Sequence[tuple[int, ...]],
        *,
        community: bool,
    ) -> list[str]:
        """Return the tags that most probably are liked best, over every order of the user's tags."""
        tags = sorted({tag for cues in (*questions, *(cues for cues, _ in seen)) for tag in cues})
        place = {tag: number for number, tag in enumerate(tags)}
        leanings = self._leanings[community]
        best = favourites(len(tags), CUED)
        likelihood = np.zeros(len(next(iter(best.values()))))
        for (cues, answer), count in Counter(seen).items():
            kept = best[tuple(place[tag] for tag in cues)] == place[self._tags.index(answer)]
            likelihood += count * np.log(np.where(kept, 1 - NOISE, 0.0) + NOISE / CUED)
        weights = np.exp(likelihood - likelihood.max())
        weights *= order_probabilities(tuple(leanings[tag] for tag in tags), TASTE_SPREAD)
        answers = []
        for cues in questions:
            chosen = np.bincount(best[tuple(place[tag] for tag in cues)], weights, len(tags))
            answers.append(self._tags[tags[int(chosen.argmax())]])
        return answers
