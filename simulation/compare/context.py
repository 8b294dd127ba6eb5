"""What all methods of a comparison share: the frozen model, the task, and how questions are answered."""

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
from fedperfit.edge.engine.answering import MAX_NEW_TOKENS, Question, answer
from fedperfit.edge.engine.examples import Example, encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.slab import Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.tasks import Pair, PromptForm, Task

Values = Mapping[str, Any]
"""Hyper-parameters by name."""


NOTHING = Stack([], None, False)
"""No shift."""


@dataclass(frozen=True)
class Context:
    """One task on one base model, with one seed."""

    base: BaseModel
    task: Task
    form: PromptForm
    seed: int
    items: ItemCache
    """What the untouched base model makes of items."""
    folder: Path
    """Keeps what is made once and used often: collective parts, profiles."""
    batch_size: int = 8
    """Items per training step, of every method."""
    answer_batch: int = 20
    collective_items: int = 24
    """Pairs of each other user for collective parts: questions first, then the latest items."""
    encoder: str = ""
    """Sentence encoder for CHAMELEON's selection of items; empty: the base model."""
    most_pairs: int = 0
    """At most this many pairs of all others together, drawn at random; 0 is all."""

    def on(self, base: BaseModel) -> "Context":
        """The same with other weights, of which nothing is kept."""
        return replace(self, base=base, items=ItemCache(base, 0))

    def pairs(self, history: History) -> list[Pair]:
        """All training pairs of one person, oldest first."""
        return history.pairs(self.form, 0)

    def collective_histories(self, others: Sequence[History]) -> list[History]:
        """Others cut to what collective parts may train on."""
        cut = []
        for other in others:
            answered = other.answered[-self.collective_items :]
            room = self.collective_items - len(answered)
            cut.append(replace(other, answered=answered, items=other.items[-room:] if room else []))
        return cut

    def sampled(self, pairs: Sequence[Pair]) -> list[Pair]:
        """At most `most_pairs` of the others' pairs, the same ones for every method."""
        if not self.most_pairs or len(pairs) <= self.most_pairs:
            return list(pairs)
        return random.Random(f"pairs of the others/{len(pairs)}").sample(pairs, self.most_pairs)

    def encode(self, pairs: Sequence[Pair]) -> list[Example]:
        """Pairs as token ids, to train on."""
        return encode(self.base, pairs)

    def prompt(self, question: str) -> str:
        """A benchmark question as the prompt every method asks."""
        return self.task.query_pair(question, "", self.form).prompt

    def answer(self, prompts: Sequence[str], stack: Stack = NOTHING) -> list[str]:
        """Labels or texts for `prompts`, under the shifts of `stack`."""
        if not prompts:
            return []
        rows = encode(self.base, [Pair(prompt, "") for prompt in prompts], reserve=MAX_NEW_TOKENS)
        questions = [Question(row.prompt) for row in rows]
        return answer(*(self.base, self.task, self.form, stack, questions), batch_size=self.answer_batch)

    def number(self, *about: object) -> int:
        """A seed of 63 bits for a part of the work, from the bench's seed."""
        text = "/".join(map(str, (self.seed, *about)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def keep(self, name: str, about: Any, make: Callable[[], bytes]) -> bytes:
        """What `make` makes of `about`, made once, whatever process asks first."""
        key = json.dumps([self.base.card.fingerprint, self.task.name, self.form, about], sort_keys=True)
        path = self.folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    write_atomic(path, make())
        return path.read_bytes()

    @property
    def searching(self) -> bool:
        """Whether hyper-parameters are being chosen, on a part of the others' pairs; time does not count."""
        return self.most_pairs > 0

    @cached_property
    def room(self) -> int:
        """Tokens a prompt may have."""
        return self.base.context - MAX_NEW_TOKENS - 1


def people_digest(others: Sequence[History]) -> str:
    """Names the others a collective part was trained on."""
    text = "\n".join(f"{o.name} {len(o.items)} {len(o.answered)}" for o in others)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
