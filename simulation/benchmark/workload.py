"""Workload of a benchmark: random tokens in the lengths of LaMP's history items.

Training time depends on how many tokens a row has and how many of them all rows share, not on which
they are, so every item has its task's mean lengths exactly. Llama-2's tokenizer is not at hand; its
usual 1.35 tokens per word turn word counts into tokens. Sources, word counts per field:

- shared: OPPU's instruction up to the field (`configs/tasks`), counted with a byte-level BPE of 8,192
  trained on LaMP-like text, plus BOS. Not rescaled: a list of labels has more tokens per word than prose.
- field: LaMP's published mean words of a question less those of the instruction in it, times 1.35: 2M
  92.4 - 44, 3 128.2 - 28, 4 30.0 - 8, 5 162.3 - 11; for 2N 17.7, measured on 1,500 items of news in its
  format; plus the closing words (2 or 3 tokens, same BPE).
- target: LaMP's published mean words of an answer, times 1.35: 4 10.07, 5 9.71, 7 16.96 (16.3 measured
  on LaMP-7's histories); for labels two words (2M) or 1.07 (2N, measured); a score is a space and a
  digit; plus the end token.
- LaMP-7's history has no source: the prompt is BOS and `tweet:` alone, the same for all items.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import task_by_name
from fedperfit.simulation.run.settings import RunSettings

if TYPE_CHECKING:
    from fedperfit.edge.engine.examples import Example
    from fedperfit.protocol.model.base_model import BaseModel


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Numbers of tokens of every training item of a task.

    Raises:
        InputError: A number is too small.
    """

    shared: int
    """Start token and instruction, the same in all items."""
    field: int
    """Rest of the prompt: the item's own text and the template's closing words."""
    target: int
    """Answer with the end token."""

    def __post_init__(self) -> None:
        for name, least in (("shared", 0), ("field", 0), ("target", 2)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}: must be at least {least}")
        if self.prompt < 1:
            raise InputError("shared=0 and field=0: a prompt has at least one token")

    @property
    def prompt(self) -> int:
        """Tokens of the whole prompt."""
        return self.shared + self.field

    @property
    def inputs(self) -> int:
        """Tokens a model must read; the end token is only ever predicted."""
        return self.prompt + self.target - 1


LENGTHS = {
    "LaMP_2N": Lengths(shared=71, field=26, target=2),
    "LaMP_2M": Lengths(shared=76, field=68, target=4),
    "LaMP_3": Lengths(shared=44, field=137, target=3),
    "LaMP_4": Lengths(shared=13, field=33, target=15),
    "LaMP_5": Lengths(shared=17, field=206, target=14),
    "LaMP_7": Lengths(shared=3, field=0, target=24),
}
"""Numbers of tokens of each task."""

PRESETS = {
    "LaMP_2N": "news_categorize",
    "LaMP_2M": "movie_tagging",
    "LaMP_3": "product_rating",
    "LaMP_4": "news_headline",
    "LaMP_5": "scholarly_title",
    "LaMP_7": "tweet_paraphrase",
}
"""Preset of each task with epochs, ranks, layers, positions and batch size."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Users to be fitted from scratch, one after another or side by side.

    Raises:
        InputError: There are no users or no items.
    """

    lengths: Lengths
    users: int
    items: int
    """History items of each user."""
    settings: RunSettings
    """Epochs, batch size, rates, ranks, layers, positions and seed."""

    def __post_init__(self) -> None:
        for name in ("users", "items"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")

    @classmethod
    def of_task(
        cls, task: str, *, users: int, items: int, overrides: Mapping[str, Any] | None = None
    ) -> "Workload":
        """Take a LaMP task's lengths and its preset.

        Args:
            task: LaMP task.
            users: Number of users.
            items: History items of each user.
            overrides: Settings that replace the preset's.

        Raises:
            InputError: A task or setting is unknown.
        """
        task_by_name(task)
        settings = RunSettings.read(PRESETS[task], overrides)
        return cls(lengths=LENGTHS[task], users=users, items=items, settings=settings)

    @property
    def steps(self) -> int:
        """Optimizer steps per user."""
        return self.settings.personal_epochs * -(-self.items // self.settings.batch_size)


def make_examples(base: "BaseModel", workload: Workload) -> Iterator[list["Example"]]:
    """Make each user's items in turn: random ordinary tokens, reproducible from the seed.

    Args:
        base: The base model, for its vocabulary.
        workload: Users, items and seed.

    Raises:
        InputError: An item is longer than the model's context.
    """
    from fedperfit.edge.engine.examples import Example

    lengths = workload.lengths
    if lengths.prompt + lengths.target > base.context:
        raise InputError(
            f"items of {lengths.prompt + lengths.target} tokens exceed the model's context of {base.context}"
        )
    special = set(base.tokenizer.all_special_ids)
    ordinary = [token for token in range(base.model.config.vocab_size) if token not in special]
    shared = tuple(random.Random(workload.settings.seed).choices(ordinary, k=lengths.shared))
    end = (base.tokenizer.eos_token_id,)

    def item(rng: random.Random) -> Example:
        field = tuple(rng.choices(ordinary, k=lengths.field))
        return Example(shared + field, (*rng.choices(ordinary, k=lengths.target - 1), *end))

    def user(number: int) -> list[Example]:
        rng = random.Random(order(workload, number))
        return [item(rng) for _ in range(workload.items)]

    return map(user, range(workload.users))


def batches(examples: Sequence["Example"], workload: Workload, user: int) -> Iterator[list["Example"]]:
    """Yield the batches of all epochs of one user, shuffled as training does with `order(workload, user)`.

    Args:
        examples: The user's examples.
        workload: Epochs, batch size and seed.
        user: Number of the user.
    """
    rng = random.Random(order(workload, user))
    size = workload.settings.batch_size
    for _ in range(workload.settings.personal_epochs):
        rows = rng.sample(range(len(examples)), len(examples))
        for start in range(0, len(rows), size):
            yield [examples[row] for row in rows[start : start + size]]


def order(workload: Workload, user: int) -> str:
    """Return the seed of one user's shuffling.

    Args:
        workload: Source of the seed.
        user: Number of the user.
    """
    return f"{workload.settings.seed}/{user}"
