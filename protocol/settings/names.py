"""The names of settings; imports nothing heavy, so that every program may use it."""

from collections.abc import Iterable
from difflib import get_close_matches


def key_of(name: str) -> str:
    """The key of a setting, as in files and on the command line: hyphens where the field has underscores."""
    return name.replace("_", "-")


def nearest(word: str, words: Iterable[str]) -> str:
    """The most similar of some words."""
    return get_close_matches(word, list(words), n=1, cutoff=0.0)[0]
