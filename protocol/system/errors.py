"""The errors that fedperfit raises on purpose, and text that is safe to print."""


class FedperfitError(Exception):
    """Base class of every error that fedperfit raises on purpose; its text is one line for a person."""


class InputError(FedperfitError, ValueError):
    """A user's mistake; command lines print it and exit with code 2."""


class MissingFileError(InputError):
    """A file or folder that the user named, or that a run needs, does not exist."""


class MalformedFileError(InputError):
    """A file exists but is broken, truncated, or not of the kind that was asked for."""


class SettingError(InputError):
    """A setting is unknown, of the wrong type, or outside its bounds."""


class PromptError(InputError):
    """A text or a conversation is one that the model cannot be asked."""


class PromptTooLong(PromptError):
    """A prompt leaves no room for an answer in the model's context."""


class RunFailed(FedperfitError):
    """A run, or a program it needs, did not complete; command lines print it and exit with code 1."""


class TooFewClients(InputError, RunFailed):
    """A run ended for want of clients; it can be resumed. Command lines print it and exit with code 3."""


def printable(text: str) -> str:
    """Return `text` with everything unprintable replaced by `?`.

    Names and messages of other people may hold control sequences; a terminal shows the result as it is.
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def line_of(text: str, longest: int = 400) -> str:
    """Return a text that other people may have a say in as one printable line.

    Args:
        text: The text.
        longest: Characters after which it is cut off.
    """
    line = printable(" ".join(text[: 4 * longest].split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"
