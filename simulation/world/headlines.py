"""Headline writing (LaMP-4): the article gives the facts, the user form, casing and closing mark."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from fedperfit.simulation.world.lexicon import (
    ADJECTIVES,
    FIRST_NAMES,
    OBJECTS,
    SUBJECTS,
    SURNAMES,
    TIMES,
    TOWNS,
    VERBS,
)
from fedperfit.simulation.world.world_task import WorldItem, WorldTask, polish

FAVOURITE = 0.9
"""Share of a user's headlines in their favourite form; all others have their second form."""

FORMS = {
    "plain": "{subject} {past} {object}",
    "colon": "{town}: {subject} {past} the {object}",
    "question": "why did {subject} {verb} the {object}?",
    "number": "{number} reasons {subject} {past} this {object}",
    "how-to": "how to {verb} a {object} in {town}",
}
"""Templates of the forms a headline can have."""
_WEIGHTS = {
    False: {"plain": 0.4, "colon": 0.15, "question": 0.15, "number": 0.15, "how-to": 0.15},
    True: {"plain": 0.12, "colon": 0.16, "question": 0.4, "number": 0.16, "how-to": 0.16},
}
CASINGS = ("lower", "title", "sentence")
"""Ways to set capitals."""
CLOSES = ("", ".", "!")
"""Marks that end a headline."""

_ARTICLES = (
    "in {town}, the {subject} {past} the {object} in {time}. {name} {surname} counted {number} reports.",
    "after {number} meetings in {time}, the {subject} of {town} {past} the {object}. {adjective} "
    "residents came.",
    "{name} {surname} of {town} said that the {subject} {past} the {object}. it took {number} weeks.",
    "the {object} was {past} by the {subject}, {name} said in {town}. {number} people saw it in {time}.",
    "{number} {adjective} guests watched in {town} as the {subject} {past} the {object} this {time}.",
)


class Facts(NamedTuple):
    """The facts of an article that a headline can tell."""

    subject: str
    verb: str
    object: str
    town: str
    number: int


@dataclass(frozen=True)
class HeadlineTaste:
    """A favourite and a second form, a casing and a closing mark."""

    form: str
    second: str
    casing: str
    close: str


def headline(facts: Facts, form: str, casing: str = "lower", close: str = "") -> str:
    """Write the headline of `facts` in one style.

    Args:
        facts: The article's facts.
        form: Key of `FORMS`.
        casing: One of `CASINGS`.
        close: One of `CLOSES`; a question keeps its question mark.
    """
    text = FORMS[form].format(past=VERBS[facts.verb], **facts._asdict())
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    if casing == "lower":
        text = text.lower()
    else:
        first, *rest = text.split(" ")
        capitalised = [word[:1].upper() + word[1:] for word in rest] if casing == "title" else rest
        text = " ".join([first[:1].upper() + first[1:], *capitalised])
    return text + ("" if text.endswith("?") else close)


class Headlines(WorldTask[HeadlineTaste, Facts]):
    """The headline task; an item's cues are the article's facts."""

    task = "LaMP_4"

    def taste(self, rng: random.Random, *, community: bool) -> HeadlineTaste:
        weights = dict(_WEIGHTS[community])
        form = rng.choices(list(weights), list(weights.values()))[0]
        del weights[form]
        second = rng.choices(list(weights), list(weights.values()))[0]
        return HeadlineTaste(form, second, rng.choice(CASINGS), rng.choice(CLOSES))

    def item(self, rng: random.Random, taste: HeadlineTaste) -> WorldItem[Facts]:
        facts = Facts(
            subject=rng.choice(SUBJECTS),
            verb=rng.choice(list(VERBS)),
            object=rng.choice(OBJECTS),
            town=rng.choice(TOWNS),
            number=rng.randint(2, 20),
        )
        text = rng.choice(_ARTICLES).format(
            past=VERBS[facts.verb],
            adjective=rng.choice(ADJECTIVES),
            name=rng.choice(FIRST_NAMES),
            surname=rng.choice(SURNAMES),
            time=rng.choice(TIMES),
            **facts._asdict(),
        )
        return WorldItem(polish(text), facts)

    def answer(self, rng: random.Random, taste: HeadlineTaste, cues: Facts) -> str:
        form = taste.form if rng.random() < FAVOURITE else taste.second
        return headline(cues, form, taste.casing, taste.close)

    def best(self, taste: HeadlineTaste, cues: Facts) -> str:
        return headline(cues, taste.form, taste.casing, taste.close)

    def best_unknown(self, cues: Facts, *, community: bool) -> str:
        """Return the headline in the form with the highest expected ROUGE-1 over users.

        Casing and closing mark do not count in ROUGE.
        """
        return headline(cues, _best_form(community))

    def best_after(
        self, seen: Sequence[tuple[Facts, str]], questions: Sequence[Facts], *, community: bool
    ) -> list[str]:
        """Return headlines in the form with the highest expected ROUGE-1, over every taste."""
        left = _tastes(community)
        for facts, answer in seen:
            told = {style for style in product(FORMS, CASINGS, CLOSES) if headline(facts, *style) == answer}
            for taste in left:
                manner = (taste.casing, taste.close)
                favoured, other = (taste.form, *manner) in told, (taste.second, *manner) in told
                left[taste] *= FAVOURITE * favoured + (1 - FAVOURITE) * other
            total = sum(left.values())
            left = {taste: weight / total for taste, weight in left.items() if weight}
        forms: dict[str, float] = dict.fromkeys(FORMS, 0.0)
        manners: dict[tuple[str, str], float] = {}
        for taste, weight in left.items():
            forms[taste.form] += weight * FAVOURITE
            forms[taste.second] += weight * (1 - FAVOURITE)
            manner = (taste.casing, taste.close)
            manners[manner] = manners.get(manner, 0.0) + weight
        alike = _likeness()
        best = max(FORMS, key=lambda form: sum(share * alike[form, gold] for gold, share in forms.items()))
        casing, close = max(manners, key=lambda manner: manners[manner])
        return [headline(facts, best, casing, close) for facts in questions]


def _tastes(community: bool) -> dict[HeadlineTaste, float]:
    """Return every taste with its probability in the prior."""
    weights = _WEIGHTS[community]
    tastes = {}
    for form, second, casing, close in product(FORMS, FORMS, CASINGS, CLOSES):
        if form != second:
            share = weights[form] * weights[second] / (sum(weights.values()) - weights[form])
            tastes[HeadlineTaste(form, second, casing, close)] = share / len(CASINGS) / len(CLOSES)
    return tastes


@lru_cache(maxsize=1)
def _likeness() -> dict[tuple[str, str], float]:
    """Return the mean ROUGE-1 of a headline in one form against one in another, over 50 drawn facts."""
    from rouge_score.rouge_scorer import RougeScorer  # loads NLTK, and with it SciPy and scikit-learn: 3 s

    scorer = RougeScorer(["rouge1"])
    rng = random.Random("headline prior")
    headlines = Headlines()
    drawn = [headlines.item(rng, headlines.taste(rng, community=True)).cues for _ in range(50)]
    return {
        (form, gold): sum(
            scorer.score(headline(facts, gold), headline(facts, form))["rouge1"].fmeasure for facts in drawn
        )
        / len(drawn)
        for form, gold in product(FORMS, FORMS)
    }


@lru_cache(maxsize=2)
def _best_form(community: bool) -> str:
    """Find the form with the highest expected ROUGE-1, over forms and 200 drawn facts.

    The best form is the same for all facts, but for ties.
    """
    from rouge_score.rouge_scorer import RougeScorer  # loads NLTK, and with it SciPy and scikit-learn: 3 s

    scorer = RougeScorer(["rouge1"])
    rng = random.Random("headline prior")
    headlines = Headlines()
    tastes = [headlines.taste(rng, community=community) for _ in range(200)]
    drawn = [(taste, headlines.item(rng, taste).cues) for taste in tastes]
    gold = [headlines.answer(rng, taste, facts) for taste, facts in drawn]

    def expected(form: str) -> float:
        pairs = zip(drawn, gold, strict=True)
        return float(sum(scorer.score(g, headline(f, form))["rouge1"].fmeasure for (_, f), g in pairs))

    return max(FORMS, key=expected)
