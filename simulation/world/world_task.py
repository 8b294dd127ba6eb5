"""The interface of the world's tasks: tastes, items, answers, and the best answers possible."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Taste = TypeVar("Taste")
Cues = TypeVar("Cues")


@dataclass(frozen=True)
class WorldItem(Generic[Cues]):
    """A text, and the cues in it that decide the answer together with a user's taste."""

    text: str
    cues: Cues


class WorldTask(Protocol[Taste, Cues]):
    """A task of the world, which draws and answers its items.

    A taste is drawn from the population's prior, or from the prior of the community that federates, whose
    members share a leaning (what a collective shift can learn).
    """

    task: str
    """Name of the LaMP task whose prompts and metrics it takes."""

    def taste(self, rng: random.Random, *, community: bool) -> Taste:
        """Draw a user's latent preferences.

        Args:
            rng: Source of randomness.
            community: Draw from the community's prior instead of the population's.
        """

    def item(self, rng: random.Random, taste: Taste) -> WorldItem[Cues]:
        """Draw a text that this user would meet, and its cues.

        Args:
            rng: Source of randomness.
            taste: The user's preferences, which may decide what the user comes across.
        """

    def answer(self, rng: random.Random, taste: Taste, cues: Cues) -> str:
        """Draw the user's own answer, noise included.

        Args:
            rng: Source of the noise.
            taste: The user's preferences.
            cues: Cues of the item that is answered.
        """

    def best(self, taste: Taste, cues: Cues) -> str:
        """Return the Bayes-optimal answer for a known taste.

        Args:
            taste: The user's preferences.
            cues: Cues of the item that is answered.
        """

    def best_unknown(self, cues: Cues, *, community: bool) -> str:
        """Return the best answer for a user of whom only the prior is known.

        Args:
            cues: Cues of the item that is answered.
            community: The prior is the community's instead of the population's.
        """

    def best_after(
        self, seen: Sequence[tuple[Cues, str]], questions: Sequence[Cues], *, community: bool
    ) -> list[str]:
        """Return the best answers for a user of whom the prior and some answers are known, and no more.

        These are the best under the posterior predictive, which no method can beat on average.

        Args:
            seen: Cues of items, and the user's own answers to them.
            questions: Cues of the items that are answered.
            community: The prior is the community's instead of the population's.
        """


def polish(text: str) -> str:
    """Mend what templates leave: `a honest` becomes `an honest`, and sentences begin with a capital."""
    text = re.sub(r"\b([aA]) (?=[aeiouAEIOU]|honest)", r"\1n ", text)
    return re.sub(r"(^|[.] )([a-z])", lambda match: match[1] + match[2].upper(), text)
