"""The kinds of answers that tasks have."""

from enum import StrEnum


class AnswerKind(StrEnum):
    """The kind of a task's answers, which decides how they are found and scored."""

    LABELS = "labels"
    """One of a fixed list of words or names."""
    NUMBER = "number"
    """One of a fixed list of numbers, whose distance counts."""
    TEXT = "text"
    """Any text, which the model generates."""
