"""The kinds of answers that tasks have, and which of a fixed list is the answer."""

from enum import StrEnum


class AnswerKind(StrEnum):
    """The kind of a task's answers, which decides how they are found and scored."""

    LABELS = "labels"
    """One of a fixed list of words or names."""
    NUMBER = "number"
    """One of a fixed list of numbers, whose distance counts."""
    TEXT = "text"
    """Any text, which the model generates."""


class Estimate(StrEnum):
    """Which of a task's labels is the answer, given how probable the model finds each."""

    MODE = "mode"
    """The likeliest, which is right most often if the probabilities are."""
    MEDIAN = "median"
    """Of numbers, the first that at least half of the probability does not exceed: if the probabilities are
    right, none has a lower mean absolute error."""
