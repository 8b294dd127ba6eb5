"""CHAMELEON's prompts: they ask the model for insights, and for outputs with an insight in the prompt.

The output prompts of LaMP-2M, -3 and -7 are the paper's (appendix A.3), those of LaMP-2N, -4 and -5 are in
the same spirit. The paper does not print its insight prompts; these ask for what its output prompts need:
words that go on after "The user prefers" and "Your answer should".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fedperfit.protocol.tasks import MOVIE_TAGS, NEWS_CATEGORIES


class Persona(StrEnum):
    """The paper's two agents that answer: one knows the person, the other ignores all preferences."""

    PERSONALIZED = "personalized"
    NEUTRAL = "neutral"


@dataclass(frozen=True)
class Wording:
    """Words of the prompts for one task."""

    opening: str
    """Text before the history."""
    item: str
    """Format of one line of the history, with the item's fields."""
    asked: str
    """Text before the query."""
    question: str
    """Question about the query."""
    guess: str
    """Sentence on what the personalized agent tries."""
    closing: str = ""
    """Text at the end of both agents' prompts."""


def _choice(noun: str, thing: str, labels: Sequence[str]) -> tuple[str, str]:
    names = ", ".join(labels)
    return (
        f"Which {noun} does this {thing} relate to among the following tags? Just answer with only ONE "
        f"{noun} name without further explanation. tags: [{names}]",
        f" Answer only with one {noun} name ({names}).",
    )


_MOVIE = _choice("tag", "movie", MOVIE_TAGS)
_NEWS = _choice("category", "article", NEWS_CATEGORIES)
_OPENING = "Suppose you are a user with the following user profile history of "

WORDINGS = {
    "LaMP_2M": Wording(
        opening=f"{_OPENING}movie tagging:",
        item='The tag for movie: "{description}" is "{tag}".',
        asked="Now, given a new description: ",
        question=_MOVIE[0],
        guess="You try to predict the movie tagging that the user preferred based on their history.",
        closing=_MOVIE[1],
    ),
    "LaMP_2N": Wording(
        opening=f"{_OPENING}news categorization:",
        item='The category for article: "{text}" is "{category}".',
        asked="Now, given a new article: ",
        question=_NEWS[0],
        guess="You try to predict the news category that the user preferred based on their history.",
        closing=_NEWS[1],
    ),
    "LaMP_3": Wording(
        opening=f"{_OPENING}product rating based on the user's review of the product:",
        item='{score} is the rating score for product: "{text}".',
        asked="Now, given a new review by the user: ",
        question="What is the rating score of the following review on a scale of 1 to 5? Just answer with "
        "1, 2, 3, 4, or 5 without further explanation.",
        guess="You try to predict the rating of the product based on the user history ratings.",
        closing=" Just answer with 1, 2, 3, 4, or 5 without further explanation.",
    ),
    "LaMP_4": Wording(
        opening=f"{_OPENING}headlines written for articles:",
        item='"{title}" is the headline for article: "{text}".',
        asked="Now, given a new article: ",
        question="Generate a headline for the article in the style the user likes.",
        guess="You try to write the headline in the style the user likes based on the history.",
    ),
    "LaMP_5": Wording(
        opening=f"{_OPENING}titles written for abstracts of papers:",
        item='"{title}" is the title for abstract: "{abstract}".',
        asked="Now, given a new abstract of a paper: ",
        question="Generate a title for the abstract in the style the user likes.",
        guess="You try to write the title in the style the user likes based on the history.",
    ),
    "LaMP_7": Wording(
        opening="Suppose you are a twitter user with the following user profile history that shows their "
        "preferred way of speaking:",
        item="{text}",
        asked="Now, given a new twitter post: ",
        question="Paraphrase the tweet in the style the user likes without any explanation before or after "
        "it.",
        guess="You try to paraphrase the tweet in the style the user likes based on the history.",
    ),
}
_ROLES = {
    Persona.PERSONALIZED: "You are a helpfully personalized assistant. {guess} The user prefers {insight}.",
    Persona.NEUTRAL: "You are a generic and impersonal assistant. You do not consider the user's preferences "
    "or profile history when responding. Your answer should {insight}.",
}
_INSIGHTS = {
    Persona.PERSONALIZED: "Describe in one sentence what this user prefers. The user prefers",
    Persona.NEUTRAL: "Describe in one sentence how an assistant answers that knows nothing of this user and "
    "considers no preference. Your answer should",
}


def insight_prompt(task: str, items: Sequence[dict[str, Any]], persona: Persona) -> str:
    """Write the prompt for the insight of one of the two agents; the answer continues its last words.

    Args:
        task: name of the LaMP task.
        items: history shown, oldest first.
        persona: agent whose insight is asked for.
    """
    return f"{history_text(task, items)}\n\n{_INSIGHTS[persona]}"


def output_prompt(
    task: str, items: Sequence[dict[str, Any]], query: str, persona: Persona, insight: str
) -> str:
    """Write the prompt for one agent's answer to a query; the answer follows the prompt.

    Args:
        task: name of the LaMP task.
        items: history shown, oldest first.
        query: text the question is about.
        persona: agent that answers.
        insight: what the model wrote for this agent's insight prompt.
    """
    words = WORDINGS[task]
    role = _ROLES[persona].format(guess=words.guess, insight=insight.strip().rstrip("."))
    return (
        f"{history_text(task, items)}\n\n{words.asked}{query}\n\nQuestion: {words.question}\n\n"
        f"{role}{words.closing}\n\nYour answer: "
    )


def history_text(task: str, items: Sequence[dict[str, Any]]) -> str:
    """Write the opening and the numbered history of a prompt.

    Args:
        task: name of the LaMP task.
        items: history shown, oldest first.
    """
    words = WORDINGS[task]
    lines = [f"{number}. {words.item.format(**item)}" for number, item in enumerate(items, start=1)]
    return "\n".join([words.opening, *lines])
