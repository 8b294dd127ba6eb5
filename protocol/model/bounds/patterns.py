"""Patterns by which an adapter names the layers it is for: PEFT matches them, and some never end."""

import re
from collections.abc import Mapping
from typing import Any

from fedperfit.protocol.system.errors import InputError

_REPEAT = re.compile(r"[*+{]|\)\?")
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_MOST_REPEATS = 6
"""Repeats in a pattern; each multiplies the time that a name takes by its length, in the worst case."""


def check_patterns(values: Any) -> None:
    """Check all texts of an adapter's configuration, any of which may be taken for a pattern.

    Args:
        values: Its JSON value.

    Raises:
        InputError: One could take longer than anybody waits.
    """
    if isinstance(values, str):
        if _REPEATED_GROUP.search(values) or len(_REPEAT.findall(values)) > _MOST_REPEATS:
            raise InputError(
                f"pattern {values[:80]!r}: expected at most {_MOST_REPEATS} repeats, and none of a group"
            )
    elif isinstance(values, Mapping):
        for name, value in values.items():
            check_patterns(name)
            check_patterns(value)
    elif isinstance(values, list):
        for value in values:
            check_patterns(value)
