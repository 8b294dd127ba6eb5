"""Templates: texts in which `{field}` stands for a field of an item, checked once and filled in often."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from string import Formatter

from fedperfit.protocol.system.errors import InputError

LABELS = "labels"
"""Name that stands for the list of a task's labels in its templates; no field has it."""
FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""Pattern of a field's name."""
_MOST_PLACES = 32
"""Places of a template that are filled in, at most; with the list of labels in each of thousands a small file
would make prompts that fill the memory."""


def check_template(key: str, template: str, allowed: Collection[str]) -> None:
    """Check that a template can be filled in from some fields.

    Args:
        key: Key of the template in its file, for the error.
        template: Text with names in braces; a brace itself is written twice.
        allowed: Names that it may use.

    Raises:
        InputError: It is broken, uses another name, or too many.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"{key}: broken template ({error}); a brace itself is written twice") from None
    places = [(name, detail, conversion) for _, name, detail, conversion in parts if name is not None]
    if len(places) > _MOST_PLACES:
        raise InputError(f"{key}: {len(places)} names in braces, at most {_MOST_PLACES} may be filled in")
    for name, detail, conversion in places:
        if detail or conversion or not FIELD_NAME.fullmatch(name):
            raise InputError(f"{key}: only a field's name stands in braces, not {name!r}")
        if name not in allowed:
            raise InputError(f"{key}: no field {name!r}; the nearest is {nearest_of(name, allowed)!r}")


def check_shows(key: str, template: str | None, needed: Collection[str]) -> None:
    """Check that a template shows something of an item: one that shows nothing would be the same for all.

    Args:
        key: Key of the template in its file, for the error.
        template: Text that `check_template` found well made; None where the file has none.
        needed: Names of which it uses at least one.

    Raises:
        InputError: It uses none of them.
    """
    if template is not None and not {name for _, name, _, _ in Formatter().parse(template)} & set(needed):
        raise InputError(
            f"{key}: shows nothing of an item; expected {' or '.join(map(in_braces, needed))} in it"
        )


def in_braces(name: str) -> str:
    """Return how a field's name stands in a template."""
    return f"{{{name}}}"


def nearest_of(word: str, words: Collection[str]) -> str:
    """Return the most similar of some words."""
    return get_close_matches(word, list(words), n=1, cutoff=0.0)[0]
