"""What every kind of task in the world provides."""

import random
import re
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Taste = TypeVar("Taste")
Cues = TypeVar("Cues")


@dataclass(frozen=True)
class Item(Generic[Cues]):
    """A text and the cues in it, which with a taste decide the answer."""

    text: str
    cues: Cues


class Kind(Protocol[Taste, Cues]):
    """One kind of task: tastes, items, answers, and the best answers possible.

    A taste is drawn from the population's prior, or from that of the community that federates,
    whose members share a leaning of their own (what a collective shift can learn).
    """

    task: str

    def taste(self, rng: random.Random, *, community: bool) -> Taste:
        """A user's latent preferences."""

    def item(self, rng: random.Random, taste: Taste) -> Item[Cues]:
        """A text this user would meet."""

    def answer(self, rng: random.Random, taste: Taste, cues: Cues) -> str:
        """What the user answers, noise included."""

    def best(self, taste: Taste, cues: Cues) -> str:
        """The Bayes-optimal answer for a known taste."""

    def best_unknown(self, cues: Cues, *, community: bool) -> str:
        """The best answer for a user drawn from the prior."""


def polish(text: str) -> str:
    """Mend what templates leave: `a honest` to `an honest`, and capitals after full stops."""
    text = re.sub(r"\b([aA]) (?=[aeiouAEIOU]|honest)", r"\1n ", text)
    return re.sub(r"(^|[.] )([a-z])", lambda match: match[1] + match[2].upper(), text)
