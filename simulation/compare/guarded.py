"""Calls of methods, which may be anybody's code: what goes wrong in one costs its own row alone."""

import math
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

from fedperfit.edge.agent.history import History
from fedperfit.protocol.system.errors import RunFailed, count_of, line_of
from fedperfit.simulation.compare.method import Method


class MethodFailed(RunFailed):
    """A method raised an error, or gave what no method may give."""

    def __init__(self, line: str, trace: str = "") -> None:
        """Say what went wrong.

        Args:
            line: One line for a person.
            trace: Calls that led to the error, for whoever wrote the method.
        """
        super().__init__(line)
        self.trace = trace or line


@contextmanager
def guarded(part: str) -> Iterator[None]:
    """Have whatever a method raises inside the block name its part and its place.

    Args:
        part: Function of the method that is called.

    Raises:
        MethodFailed: It raised, or tried to end the program.
    """
    try:
        yield
    except MethodFailed:
        raise
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{place.filename}, line {place.lineno}"
        line = line_of(f"{part}: {type(error).__name__}: {error}".rstrip(": "))
        raise MethodFailed(f"{line} ({at})", traceback.format_exc()) from None


def apart(histories: Sequence[History]) -> list[History]:
    """Copy histories, so that a method which changes them changes them for no other.

    Args:
        histories: Histories that other methods are given too.
    """
    parts = ("items", "answered", "questions")
    return [replace(one, **{part: deepcopy(getattr(one, part)) for part in parts}) for one in histories]


def checked_answers(answers: Any, questions: int) -> list[str]:
    """Return a method's answers if they are one text per question.

    Args:
        answers: What `answer` returned.
        questions: Number of questions.

    Raises:
        MethodFailed: They are not.
    """
    if not isinstance(answers, list | tuple):
        raise MethodFailed(f"answer: returned a {type(answers).__name__} in place of a list of texts")
    if len(answers) != questions:
        raise MethodFailed(f"answer: {count_of(len(answers), 'text')} for {count_of(questions, 'question')}")
    for answer in answers:
        if not isinstance(answer, str):
            raise MethodFailed(f"answer: {line_of(repr(answer), 60)} is no text")
        if any("\ud800" <= letter <= "\udfff" for letter in answer):
            raise MethodFailed(f"answer: {line_of(ascii(answer), 60)} holds half a character")
    return [str(answer) for answer in answers]


def counted(method: Method, fitted: Any) -> dict[str, int | float]:
    """Return what a method says that it keeps and sends, as a cell's line has it.

    Args:
        method: The method.
        fitted: Result of `fit` for a user.

    Raises:
        MethodFailed: A count is no number from 0.
    """
    with guarded("parameters"):
        counts = {"parameters": method.parameters(fitted)}
    with guarded("bytes_down and bytes_up"):
        counts |= {"bytes-down": method.bytes_down(), "bytes-up": method.bytes_up()}
    return {name: _count(name, value) for name, value in counts.items()}


def _count(name: str, value: Any) -> int | float:
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) < math.inf:
        shown = line_of(repr(value), 60)
        raise MethodFailed(f"{name.replace('-', '_')}: {shown} in place of a number from 0")
    return int(value) if isinstance(value, Integral) else float(value)
