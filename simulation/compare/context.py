"""Shared ground of all methods of a comparison: the frozen model, the task, and answering."""

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.answering import answer
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.examples import Example, encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.slab import Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.system.seeds import seed_from
from fedperfit.protocol.tasks import Pair, Prompt, PromptForm, Task

Values = Mapping[str, Any]
"""Values of hyper-parameters by name."""


NOTHING = Stack([], None, False)
"""A stack without any shift: the bare base model."""


@dataclass(frozen=True)
class MethodContext:
    """Surroundings of a method: one task on one base model with one seed."""

    base: BaseModel
    """The frozen base model."""
    task: Task
    form: PromptForm
    """Form of the prompts."""
    seed: int
    """Seed that all randomness of a method comes from."""
    items: ItemCache
    """Hidden states of items in the untouched base model, kept between trainings."""
    folder: Path
    """Folder of what is made once and used often: collective parts, profiles."""
    batch_size: int = 8
    """Items per training step of every method."""
    answer_batch: int = 20
    """Questions answered at once."""
    collective_items: int = 24
    """Pairs of each other user for collective parts: questions first, then the latest items."""
    encoder: str = ""
    """Sentence encoder for CHAMELEON's selection of items; the base model if empty."""
    most_pairs: int = 0
    """Pairs of all others together at most, drawn at random; 0 is all."""

    def on(self, base: BaseModel) -> "MethodContext":
        """Return this context with another base model, whose items are not kept."""
        return replace(self, base=base, items=ItemCache(base, 0))

    def pairs(self, history: History) -> list[Pair]:
        """Return all training pairs of one user, oldest first."""
        return history.pairs(self.form, 0)

    def collective_histories(self, others: Sequence[History]) -> list[History]:
        """Cut the others' histories to what collective parts may train on."""
        shortened = []
        for other in others:
            answered = other.answered[-self.collective_items :]
            room = self.collective_items - len(answered)
            shortened.append(replace(other, answered=answered, items=other.items[-room:] if room else []))
        return shortened

    def sampled(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Return at most `most_pairs` of the others' pairs, the same ones for every method."""
        if not self.most_pairs or len(pairs) <= self.most_pairs:
            return list(pairs)
        return random.Random(f"pairs of the others/{len(pairs)}").sample(pairs, self.most_pairs)

    def encode(self, pairs: Sequence[Pair]) -> list[Example]:
        """Encode pairs as token ids to train on."""
        return encode(self.base, pairs)

    def prompt(self, question: str) -> Prompt:
        """Put a question of the benchmark into the prompt that every method uses."""
        return self.task.asked(question, self.form)

    def answer(self, prompts: Sequence[Prompt], stack: Stack = NOTHING) -> list[str]:
        """Answer `prompts` with labels or texts.

        Args:
            prompts: Whole prompts, as `prompt` makes them.
            stack: Shifts under which the model answers.
        """
        if not prompts:
            return []
        rows = encode(self.base, [Pair(prompt, "") for prompt in prompts], reserve=self.task.answer_tokens)
        questions = [Question(row.prompt) for row in rows]
        return answer(self.base, self.task, self.form, stack, questions, batch_size=self.answer_batch)

    def number(self, *about: object) -> int:
        """Derive a seed of 63 bits from this context's seed and the names of a part of the work."""
        text = "/".join(map(str, (self.seed, *about)))
        return seed_from(text)

    def keep(self, name: str, about: Any, make: Callable[[], bytes]) -> bytes:
        """Return the bytes that `make` makes; they are made once, whichever process asks first.

        Args:
            name: Beginning of the file's name, with the folder inside `folder`.
            about: Everything the bytes depend on beside model, task and prompt form, as JSON values.
            make: Makes the bytes.
        """
        key = json.dumps([self.base.card.fingerprint, self.task.id, self.form, about], sort_keys=True)
        path = self.folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    write_atomic(path, make())
        return path.read_bytes()

    @property
    def searching(self) -> bool:
        """Whether hyper-parameters are being chosen, on a part of the others' pairs."""
        return self.most_pairs > 0

    @cached_property
    def room(self) -> int:
        """Tokens that a prompt may have."""
        return self.base.context - self.task.answer_tokens - 1


def people_digest(others: Sequence[History]) -> str:
    """Digest the names and sizes of the others that a collective part was trained on."""
    text = "\n".join(f"{o.name} {len(o.items)} {len(o.answered)}" for o in others)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
