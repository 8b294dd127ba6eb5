"""Product rating (LaMP-3): opinions add up, and the user's lenience and scale make them a score."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.world.lexicon import (
    ASPECTS,
    FIRST_NAMES,
    OPINIONS,
    PRODUCTS,
    SETTINGS,
    TIMES,
    TOWNS,
)
from fedperfit.simulation.world.world_task import WorldItem, WorldTask, polish

OPINIONS_PER_REVIEW = 3
NOISE = 0.05
"""Share of scores that are one step off."""
LENIENCE_SPREAD = 1.0
"""Standard deviation of lenience over users, in points of the score."""
COMMUNITY_LENIENCE = -0.6
"""Mean lenience in the community, in points of the score; the population's is zero."""
SCALES = (0.25, 0.4, 0.55)
"""Points of the score per unit of opinion strength, one of which each user has."""
_MOST = 2 * OPINIONS_PER_REVIEW
"""Largest sum of strengths."""
_LENIENCES = 4001
"""Points of the grid of lenience."""

_OPENINGS = (
    "i bought this {product} in {town} last {time}.",
    "{name} gave me this {product} for the {setting}.",
    "we used the {product} at the {setting} all {time}.",
    "this {product} arrived in {town} one {time}.",
)
_OPINION_SENTENCES = (
    "the {aspect} is {opinion}.",
    "i find the {aspect} {opinion}.",
    "its {aspect} seems {opinion} to me.",
    "the {aspect} looked {opinion}.",
    "{name} calls the {aspect} {opinion}.",
)


@dataclass(frozen=True)
class RatingTaste:
    """A user's rating rule: score = round(3 + lenience + scale * sum of opinion strengths), within 1 to 5."""

    lenience: float
    scale: float

    def score(self, total: int) -> int:
        """Return the score for opinions whose strengths sum to `total`."""
        return max(1, min(5, round(3 + self.lenience + self.scale * total)))


class Rating(WorldTask[RatingTaste, int]):
    """The rating task; an item's cue is the sum of three opinions' strengths, each from -2 to 2."""

    task = "LaMP_3"

    def taste(self, rng: random.Random, *, community: bool) -> RatingTaste:
        leaning = COMMUNITY_LENIENCE if community else 0.0
        return RatingTaste(leaning + rng.gauss(0, LENIENCE_SPREAD), rng.choice(SCALES))

    def item(self, rng: random.Random, taste: RatingTaste) -> WorldItem[int]:
        centre = rng.randint(-2, 2)
        strengths = [max(-2, min(2, centre + rng.randint(-1, 1))) for _ in range(OPINIONS_PER_REVIEW)]
        parts = [rng.choice(_OPENINGS).format(**_filler(rng))]
        for sentence, strength in zip(
            rng.sample(_OPINION_SENTENCES, OPINIONS_PER_REVIEW), strengths, strict=True
        ):
            parts.append(sentence.format(opinion=rng.choice(OPINIONS[strength]), **_filler(rng)))
        return WorldItem(polish(" ".join(parts)), sum(strengths))

    def answer(self, rng: random.Random, taste: RatingTaste, cues: int) -> str:
        score = taste.score(cues)
        if rng.random() < NOISE:
            score = max(1, min(5, score + rng.choice((-1, 1))))
        return str(score)

    def best(self, taste: RatingTaste, cues: int) -> str:
        return str(taste.score(cues))

    def best_unknown(self, cues: int, *, community: bool) -> str:
        """Return the median score, which no other answer beats in mean absolute error."""
        counts = self._scores[community][cues]
        below = 0
        for score in TASKS[self.task].labels:
            below += counts[score]
            if 2 * below >= counts.total():
                return score
        raise AssertionError("unreachable: some score holds the median")

    def best_after(
        self, seen: Sequence[tuple[int, str]], questions: Sequence[int], *, community: bool
    ) -> list[str]:
        """Return the medians of the scores to expect, over a fine grid of lenience and all scales."""
        scores = self._grid[community]  # (tastes, sums of strengths)
        likelihood = np.zeros(len(scores))
        for total, answer in seen:
            likelihood += np.log(_GIVEN[scores[:, total + _MOST], int(answer) - 1] + 1e-12)
        weights = np.exp(likelihood - likelihood.max())
        answers = []
        for total in questions:
            own = np.bincount(scores[:, total + _MOST], weights, len(_GIVEN))
            below = np.cumsum(own @ _GIVEN)
            answers.append(str(1 + int(np.searchsorted(2 * below, below[-1]))))
        return answers

    @cached_property
    def _grid(self) -> dict[bool, NDArray[np.int64]]:
        """Score, less one, of each taste of a grid for each sum of strengths: tastes alike in probability."""
        grid: dict[bool, NDArray[np.int64]] = {}
        totals = np.arange(-_MOST, _MOST + 1)
        for community in (False, True):
            lenience = NormalDist(COMMUNITY_LENIENCE if community else 0.0, LENIENCE_SPREAD)
            points = [lenience.inv_cdf((number + 0.5) / _LENIENCES) for number in range(_LENIENCES)]
            exact = 3 + np.array(points)[:, None, None] + np.array(SCALES)[:, None] * totals
            grid[community] = np.clip(np.rint(exact), 1, 5).astype(np.int64).reshape(-1, len(totals)) - 1
        return grid

    @cached_property
    def _scores(self) -> dict[bool, dict[int, Counter[str]]]:
        """Counts of each score by community and sum of strengths, over 20,000 drawn tastes each."""
        table: dict[bool, dict[int, Counter[str]]] = {}
        for community in (False, True):
            rng = random.Random("rating prior")
            tastes = [self.taste(rng, community=community) for _ in range(20_000)]
            table[community] = {
                total: Counter(str(taste.score(total)) for taste in tastes)
                for total in range(-_MOST, _MOST + 1)
            }
        return table


def _given() -> NDArray[np.float64]:
    """Return the probability (own score, answer) of each answer, noise included."""
    table = (1 - NOISE) * np.eye(5)
    for own in range(5):
        for step in (-1, 1):
            table[own, min(max(own + step, 0), 4)] += NOISE / 2
    return table


_GIVEN = _given()


def _filler(rng: random.Random) -> dict[str, str]:
    return {
        "product": rng.choice(PRODUCTS),
        "aspect": rng.choice(ASPECTS),
        "name": rng.choice(FIRST_NAMES),
        "setting": rng.choice(SETTINGS),
        "town": rng.choice(TOWNS),
        "time": rng.choice(TIMES),
    }
