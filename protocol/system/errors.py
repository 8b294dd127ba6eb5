"""What is wrong with the input, what went wrong with a run, and how both are told."""


class InputError(ValueError):
    """A user's mistake, told in one line; command lines print it and exit with code 2."""


def printable(text: str) -> str:
    """`text` as one line that a terminal only shows: other people's names and messages may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class RunFailed(Exception):
    """A run, or a program it needs, did not come about; told in one line, exit code 1."""
