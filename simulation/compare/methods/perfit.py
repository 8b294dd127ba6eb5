"""PerFit (ICLR 2026) and its ablations: stage 1 on the others, stage 2 on the user, on top of it."""

from collections.abc import Sequence
from typing import Any, ClassVar

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.examples import Example
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.tasks import Pair, Prompt
from fedperfit.simulation.compare.building_blocks.prompts import Retrieving
from fedperfit.simulation.compare.building_blocks.shifts import (
    COLLECTIVE_EPOCHS,
    COLLECTIVE_RANKS,
    DEPTHS,
    PERSONAL_EPOCHS,
    RANKS,
    RATES,
    collective,
    federated,
    fitted,
    settings,
    shape,
    stack,
)
from fedperfit.simulation.compare.method import Family, Method


class Stage1(Method):
    """PerFit's collective shift alone.

    Attributes:
        shared: The collective shift.
    """

    name = "perfit-stage1"
    title = "PerFit, stage 1 only"
    family = Family.SHIFT
    collective = True
    space = {
        "layers": tuple(DEPTHS),
        "positions": ("l7", "f7+l7"),
        "rank": COLLECTIVE_RANKS,
        "epochs": COLLECTIVE_EPOCHS,
        "learning-rate": RATES,
    }

    def learn(self, others: Sequence[History]) -> None:
        others = self.context.collective_histories(others)
        pairs = [pair for other in others for pair in self.pairs(other)]
        values = {name: self.values[name] for name in Stage1.space}
        self.shared, self._bytes = collective(self.context, others, values, pairs, self.shown())

    def fit(self, history: History) -> Any:
        return history, None

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        history, own = fitted
        shifts = stack(self.context, [self.shared], own)
        return self.context.answer([self.prompt(history, q) for q in questions], shifts)

    def bytes_down(self) -> int:
        return self._bytes

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

    def shown(self) -> Any:
        """Return the values that the prompts depend on."""
        return None


class PerFit(Stage1):
    """PerFit with both stages."""

    name = "perfit"
    title = "PerFit"
    builds_on: ClassVar[str | None] = "perfit-stage1"
    space = {"personal-rank": RANKS, "personal-epochs": PERSONAL_EPOCHS, "personal-learning-rate": RATES}

    def fit(self, history: History) -> Any:
        examples = self.context.encode(self.pairs(history))
        return history, self.personal(examples, history.name) if examples else None

    def personal(self, examples: Sequence[Example], name: str) -> Shift:
        """Fit the personal shift to `examples` on top of the collective one.

        Args:
            examples: The user's training examples.
            name: The user's name, which seeds the start and the order of items.
        """
        return fitted(
            self.context,
            examples,
            shape(
                self.context, self.values["layers"], self.values["personal-rank"], self.values["positions"]
            ),
            settings(self.context, self.values["personal-epochs"], self.values["personal-learning-rate"]),
            name,
            frozen=[self.shared],
        )

    def parameters(self, fitted: Any) -> int:
        own = fitted[1]
        return 0 if own is None else own.shape.parameters


class PerFitSmall(PerFit):
    """PerFit with a personal rank of 2: also in small models less than a twelfth of OPPU's parameters."""

    name = "perfit-small"
    title = "PerFit, personal rank 2"
    space = {"personal-rank": (2,), "personal-epochs": PERSONAL_EPOCHS, "personal-learning-rate": RATES}


class PerFitFederated(PerFit):
    """PerFit whose collective shift is averaged over rounds of the others' own training."""

    name = "perfit-federated"
    title = "PerFit, stage 1 federated"
    builds_on = "perfit"
    space = {"rounds": (4, 8), "federated-learning-rate": RATES}

    def learn(self, others: Sequence[History]) -> None:
        others = self.context.collective_histories(others)
        values = {name: self.values[name] for name in ("layers", "positions", "rank")}
        rounds, rate = self.values["rounds"], self.values["federated-learning-rate"]
        self.shared, self._bytes = federated(self.context, others, values, rounds, rate)


class PerFitRag(Retrieving, PerFit):
    """PerFit whose prompts show what BM25 retrieves, in training from earlier items only."""

    name = "perfit-rag"
    title = "PerFit + RAG"
    builds_on = "perfit"
    space = {"k": (1, 2), "personal-epochs": PERSONAL_EPOCHS, "personal-learning-rate": RATES}


class _Alone(Method):
    """Personal shifts on the bare base model."""

    family = Family.SHIFT

    def fit(self, history: History) -> Any:
        examples = self.context.encode(self.context.pairs(history))
        if not examples:
            return None
        where = shape(self.context, self.values["layers"], self.rank(), self.values["positions"])
        training = settings(self.context, self.values["own-epochs"], self.values["own-learning-rate"])
        return fitted(self.context, examples, where, training, history.name)

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        prompts = [self.context.prompt(question) for question in questions]
        return self.context.answer(prompts, stack(self.context, [], fitted))

    def parameters(self, fitted: Any) -> int:
        return 0 if fitted is None else fitted.shape.parameters

    def rank(self) -> int:
        """Return the rank of the personal shift."""
        return int(self.values["personal-rank"])


class Stage2(_Alone):
    """PerFit's ablation P: stage 2 alone, at PerFit's layers and positions, with its r_p."""

    name = "perfit-stage2-p"
    title = "PerFit, stage 2 only (P)"
    builds_on = "perfit"
    space = {"own-epochs": PERSONAL_EPOCHS, "own-learning-rate": RATES}


class Stage2Both(Stage2):
    """PerFit's ablation C+P: stage 2 alone with the parameters of both stages, r_c + r_p."""

    name = "perfit-stage2-cp"
    title = "PerFit, stage 2 only (C+P)"

    def rank(self) -> int:
        return int(self.values["rank"]) + super().rank()


class LoReft(_Alone):
    """LoReFT (Wu et al., 2024) per user, with layers, positions and rank of its own."""

    name = "loreft"
    title = "LoReFT per user"
    space = {
        "layers": (*DEPTHS, "all"),  # all is the default of pyreft
        "positions": ("l7", "f7+l7"),
        "personal-rank": RANKS,
        "own-epochs": PERSONAL_EPOCHS,
        "own-learning-rate": RATES,
    }
