"""Retrieval: the items that BM25 finds nearest to the question, in its prompt."""

from collections.abc import Sequence
from typing import Any

from fedperfit.simulation.compare.building_blocks.prompts import TEMPLATES, retrieving_prompt
from fedperfit.simulation.compare.method import Family, Method


class _Rag(Method):
    """Retrieved items in the prompt; the form in which they are shown is chosen on validation."""

    family = Family.PROMPT

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        k, template = self.values["k"], self.values["template"]
        return self.context.answer(
            [retrieving_prompt(self.context, fitted, q, k, template) for q in questions]
        )


class Rag1(_Rag):
    """Retrieval of the nearest item."""

    name = "rag-1"
    title = "RAG (BM25), k = 1"
    space = {"template": TEMPLATES, "k": (1,)}


class Rag2(_Rag):
    """Retrieval of the two nearest items."""

    name = "rag-2"
    title = "RAG (BM25), k = 2"
    space = {"template": TEMPLATES, "k": (2,)}


class Rag4(_Rag):
    """Retrieval of the four nearest items."""

    name = "rag-4"
    title = "RAG (BM25), k = 4"
    space = {"template": TEMPLATES, "k": (4,)}
