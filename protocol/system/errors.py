"""The errors that fedperfit raises on purpose, and how a text for a person is put."""

from pathlib import Path
from unicodedata import category, combining

_JOINERS = "\u200c\u200d"
"""Zero width non-joiner and joiner, with which Persian, Sinhala and others are spelled, and emoji made."""
_VIRAMA = 9
"""Combining class of the signs that join Indian letters, after which a joiner may end a word."""


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
    """Return `text` with everything replaced by `?` that is not shown, or that changes how the rest is.

    Names and messages of other people may hold control sequences; a terminal shows the result as it is.
    Blanks of every width stay, and joiners within a word, as UAX #31 has them; what turns the direction of
    text does not.
    """
    if text.isprintable():
        return text
    return "".join(letter if _shown(text, place) else "?" for place, letter in enumerate(text))


def refusal_of(error: OSError) -> str:
    """Return what the system refused in words, after the file where it names one."""
    named = error.filename2 or error.filename  # the second is the file that is replaced
    place = f"{named}: " if named else ""
    return f"{place}{error.strerror or error}"


def line_of(text: str, longest: int = 400) -> str:
    """Return a text that other people may have a say in as one printable line.

    Args:
        text: The text.
        longest: Characters after which it is cut off.
    """
    line = printable(" ".join(text[: 4 * longest].split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def no_file(path: Path) -> MissingFileError:
    """Return the error of a path where a file is expected and is none.

    Args:
        path: The path; a folder or the like may be there.
    """
    other = "a folder, not a file" if path.is_dir() else "not a file" if path.exists() else "no such file"
    return MissingFileError(f"{path}: {other}")


def count_of(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun: `1 item`, `1,200 items`.

    Args:
        number: How many.
        one: The noun for one.
        several: The noun for several, where it is more than an s longer.
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _shown(text: str, place: int) -> bool:
    letter = text[place]
    if letter not in _JOINERS:
        return letter.isprintable() or category(letter) == "Zs"
    before, after = text[max(0, place - 1)], text[place + 1 : place + 2]
    if combining(before) == _VIRAMA:
        return True
    return bool(after) and all(category(beside)[0] in "LMS" for beside in (before, after))
