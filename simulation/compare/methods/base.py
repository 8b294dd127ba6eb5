"""Base model alone, the floor of every comparison."""

from collections.abc import Sequence
from typing import Any

from fedperfit.simulation.compare.method import Family, Method


class Base(Method):
    """The base model without any knowledge of the user."""

    name = "base"
    title = "base model alone"
    family = Family.FLOOR

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        return self.context.answer([self.context.prompt(question) for question in questions])
