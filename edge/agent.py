"""The agent: owns one person's history, base model and personal shifts.

Its three actions take a packed collective shift and settings, and give back a packed update,
counts and metric sums; nothing it returns can hold a personal tensor, an item or a text.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from edge.answering import MAX_NEW_TOKENS, generate, likeliest
from edge.examples import encode
from edge.history import History, read_history
from edge.personal import PersonalShift
from edge.scoring import Sums, score
from edge.training import fit
from edge.vault import Belonging, Vault
from protocol.base_model import BaseModel
from protocol.errors import InputError
from protocol.packing import ShiftHeader, pack, unpack
from protocol.settings import EvaluationSettings, PersonalSettings, TrainingSettings
from protocol.shift import Shift, ShiftShape
from protocol.tasks import Kind, Pair, PromptForm


@dataclass(frozen=True)
class Outcome:
    """What an action may tell the cloud."""

    items: int
    """Training pairs used, or questions answered."""
    metrics: Sums
    """Sums over those items; sent only when the owner shares metrics."""


class Agent:
    """One person's agent, in the folder `edge.history` describes."""

    def __init__(self, folder: Path, base: BaseModel) -> None:
        self.history: History = read_history(folder)
        self.base = base
        self._vault = Vault(folder / "personal")

    def contribute(self, packed: bytes, settings: TrainingSettings) -> tuple[bytes, Outcome]:
        """Stage 1: train the collective shift on the client's own pairs; the update and its counts."""
        shift, header = self._open(packed)
        form = PromptForm(settings.prompt_form)
        pairs = self.history.pairs(form, settings.max_items)
        order = f"{settings.seed}/{self.history.name}/{header.round}"
        done = fit(self.base, shift, encode(self.base, pairs), settings, order=order)
        return pack(shift.cpu(), header), Outcome(done.items, {"loss": done.loss * done.items})

    def personalize(self, packed: bytes, personal: PersonalSettings, training: TrainingSettings) -> Outcome:
        """Stage 2: fit and keep a personal shift on top of a release, from the history alone."""
        release, header = self._open(packed)
        shape = ShiftShape(
            layers=header.shape.layers,
            rank=personal.rank,
            hidden_size=header.shape.hidden_size,
            positions=header.shape.positions,
        )
        order = f"{training.seed}/{self.history.name}"
        shift = PersonalShift.start(shape, seed=_number(order))
        pairs = self.history.pairs(PromptForm(training.prompt_form), training.max_items)
        done = fit(
            self.base,
            shift,
            encode(self.base, pairs),
            training,
            beneath=[release.requires_grad_(False).to(self.base.device)],
            additive=personal.additive,
            decay_rate=True,
            order=order,
        )
        self._vault.store(personal.slot, shift, self._belonging(packed, header, personal.additive))
        return Outcome(done.items, {"loss": done.loss * done.items})

    def evaluate(self, packed: bytes, settings: EvaluationSettings) -> Outcome:
        """Answer the client's questions at one stage; metric sums against their golds."""
        pairs = self.history.asked(PromptForm(settings.prompt_form))
        if not pairs:
            raise InputError("there are no held-out questions to evaluate on")
        answers = self._answers([pair.prompt for pair in pairs], self._shifts(packed, settings), settings)
        golds = [question["gold"] for question in self.history.questions]
        return Outcome(len(golds), score(self.history.task, answers, golds))

    def answer(self, packed: bytes, question: str, settings: EvaluationSettings) -> str:
        """The answer to one question at one stage, for the owner alone."""
        pair = self.history.task.query_pair(question, "", PromptForm(settings.prompt_form))
        (text,) = self._answers([pair.prompt], self._shifts(packed, settings), settings)
        return text

    def _shifts(self, packed: bytes, settings: EvaluationSettings) -> list[Shift]:
        shifts: list[Shift] = []
        if settings.stage != "base":
            release, header = self._open(packed)
            shifts.append(release)
            if settings.stage == "personal":
                belonging = self._belonging(packed, header, settings.additive)
                shifts.append(self._vault.load(settings.slot, belonging))
        for shift in shifts:
            shift.to(self.base.device)
        return shifts

    def _answers(self, questions: list[str], shifts: list[Shift], settings: EvaluationSettings) -> list[str]:
        task = self.history.task
        unanswered = [Pair(question, "") for question in questions]
        prompts = [e.prompt for e in encode(self.base, unanswered, reserve=MAX_NEW_TOKENS)]
        if task.kind is Kind.TEXT:
            return generate(
                self.base, shifts, prompts, batch_size=settings.batch_size, additive=settings.additive
            )
        form = PromptForm(settings.prompt_form)
        targets = [task.target(label, form) for label in task.labels]
        tokenizer = self.base.tokenizer
        tokens = tokenizer(targets, add_special_tokens=False)["input_ids"]
        labels = [(*label, tokenizer.eos_token_id) for label in tokens]
        chosen = likeliest(
            self.base, shifts, prompts, labels, batch_size=settings.batch_size, additive=settings.additive
        )
        return [task.labels[index] for index in chosen]

    def _open(self, packed: bytes) -> tuple[Shift, ShiftHeader]:
        """Unpack what the cloud sent; raises InputError when it is for another model or task."""
        shift, header = unpack(packed)
        if header.fingerprint != self.base.card.fingerprint:
            raise InputError("the collective shift is for another base model")
        if header.task != self.history.task.name:
            raise InputError(f"the collective shift is for task {header.task}")
        if not all(torch.isfinite(tensor).all() for tensor in shift.parameters()):
            raise InputError("the collective shift is not finite")
        return shift, header

    def _belonging(self, packed: bytes, header: ShiftHeader, additive: bool) -> Belonging:
        release = hashlib.sha256(packed).hexdigest()
        return Belonging(header.task, header.fingerprint, release, additive)


def _number(text: str) -> int:
    """A seed of 63 bits from any text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
