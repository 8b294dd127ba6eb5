"""Numbers as they stand in sentences, with nouns of their number."""


def count_of(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun: `1 item`, `1,200 items`.

    Args:
        number: How many.
        one: The noun for one.
        several: The noun for several, where it is more than an s longer.
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"
