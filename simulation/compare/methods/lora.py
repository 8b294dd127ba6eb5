"""LoRA (Hu et al., 2022) for the task (C), for the user (P), and OPPU (Tan et al., 2024), both together."""

from collections.abc import Sequence
from typing import Any

from fedperfit.edge.agent.history import History
from fedperfit.protocol.tasks import Pair, Prompt
from fedperfit.simulation.compare.building_blocks.adapters import (
    RANKS,
    Adapter,
    answer,
    collective_adapter,
    fit_adapter,
    merged,
    targets,
)
from fedperfit.simulation.compare.building_blocks.prompts import Retrieving
from fedperfit.simulation.compare.building_blocks.shifts import COLLECTIVE_EPOCHS, PERSONAL_EPOCHS, RATES
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.compare.method import Family, Method


class LoraP(Method):
    """A LoRA on q and v per user, on the bare base model."""

    name = "lora-p"
    title = "LoRA-P"
    family = Family.ADAPTER
    space = {"personal-rank": RANKS, "personal-epochs": PERSONAL_EPOCHS, "personal-learning-rate": RATES}

    def fit(self, history: History) -> Any:
        pairs = self.pairs(history)
        if not pairs:
            return history, None
        return history, fit_adapter(
            self.frozen(),
            pairs,
            rank=self.values["personal-rank"],
            modules=targets(self.context.base, collective=False),
            epochs=self.values["personal-epochs"],
            learning_rate=self.values["personal-learning-rate"],
            name=history.name,
        )

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        history, adapter = fitted
        modules = targets(self.context.base, collective=False)
        prompts = [self.prompt(history, question) for question in questions]
        return answer(self.frozen(), adapter, prompts, rank=self.values["personal-rank"], modules=modules)

    def parameters(self, fitted: Any) -> int:
        adapter: Adapter | None = fitted[1]
        return sum(tensor.numel() for tensor in (adapter or {}).values())

    def frozen(self) -> MethodContext:
        """Return the context whose model the user's LoRA is trained on."""
        return self.context

    def pairs(self, history: History) -> list[Pair]:
        """Make the user's training pairs."""
        return self.context.pairs(history)

    def prompt(self, history: History, question: str) -> Prompt:
        """Make the prompt of a question.

        Args:
            history: The user's history.
            question: Question as in the benchmark.
        """
        return self.context.prompt(question)


class LoraC(LoraP):
    """A LoRA on q, k and v for everyone, merged into the weights."""

    name = "lora-c"
    title = "LoRA-C"
    collective = True
    space = {"rank": RANKS, "epochs": COLLECTIVE_EPOCHS, "learning-rate": RATES}

    def learn(self, others: Sequence[History]) -> None:
        others = self.context.collective_histories(others)
        pairs = [pair for other in others for pair in self.pairs(other)]
        values = {name: self.values[name] for name in LoraC.space}
        adapter, self._bytes = collective_adapter(self.context, others, values, pairs, self.shown())
        modules = targets(self.context.base, collective=True)
        self._merged = merged(self.context, adapter, rank=values["rank"], modules=modules)

    def fit(self, history: History) -> Any:
        return history, None

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        return self._merged.answer([self.prompt(fitted[0], question) for question in questions])

    def frozen(self) -> MethodContext:
        return self._merged

    def bytes_down(self) -> int:
        return self._bytes

    def shown(self) -> Any:
        """Return the values that the prompts depend on."""
        return None


class Oppu(LoraC):
    """OPPU in its corrected form: the user's LoRA on the task's, trained on that user alone."""

    name = "oppu"
    title = "OPPU"
    builds_on = "lora-c"
    space = LoraP.space
    fit = LoraP.fit
    answer = LoraP.answer


class OppuAsReleased(Oppu):
    """OPPU's published code, whose training list is never emptied: user i trains on users 0 to i."""

    name = "oppu-as-released"
    title = "OPPU as released (trains on the users before)"
    builds_on = "oppu"
    space = {}
    sees_targets_before = True
    most_users = 6

    def pairs(self, history: History) -> list[Pair]:
        before = self.before if history.items else ()
        return [pair for one in (*before, history) for pair in self.context.pairs(one)]


class OppuRag(Retrieving, Oppu):
    """OPPU whose prompts show what BM25 retrieves, in training from earlier items only."""

    name = "oppu-rag"
    title = "OPPU + RAG"
    builds_on = "oppu"
    space = {"k": (1, 2), "personal-epochs": PERSONAL_EPOCHS, "personal-learning-rate": RATES}
