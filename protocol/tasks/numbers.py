"""Numbers as people of many countries write them, with a comma before the decimals or between thousands."""

import re

_COMMA = re.compile(r"[+-]?[0-9]{1,40},[0-9]{1,40}")
"""A number with a comma before its decimals."""
_THOUSANDS = re.compile(
    r"[+-]?[1-9][0-9]{0,2}(?P<between>[.,' \u2019])[0-9]{3}((?P=between)[0-9]{3}){0,12}"
    r"((?!(?P=between))[.,][0-9]{1,40})?"
)
"""A number with something between its thousands."""


def readings(text: str) -> list[str]:
    """Return what a text can mean as a number, each with a point before its decimals.

    `4,5` is `4.5`, and `1.234,5` is `1234.5`, as `1,234.5` is; `1,234` may be `1.234` or `1234`. What is a
    number as it stands is none of these.

    Args:
        text: Text without blanks around it.
    """
    found = []
    if _COMMA.fullmatch(text):
        found.append(text.replace(",", "."))
    grouped = _THOUSANDS.fullmatch(text)
    if grouped:
        found.append(text.replace(grouped["between"], "").replace(",", "."))
    return found
