"""What is wrong with the input, what went wrong with a run, and how both are told."""


class FedperfitError(Exception):
    """Base class of every error that fedperfit raises on purpose; its text is one line for a person."""


class InputError(FedperfitError, ValueError):
    """A user's mistake; command lines print it and exit with code 2."""


class RunFailed(FedperfitError):
    """A run, or a program it needs, did not complete; command lines print it and exit with code 1."""


def printable(text: str) -> str:
    """`text` as one line that a terminal only shows: other people's names and messages may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
