"""The six LaMP tasks: how an item becomes a prompt and a target, and an answer a label.

Two prompt forms. `lamp` is the benchmark's own question followed by a line break, the form small
models are trained on; `oppu` is the template of OPPU and PerFit, which closes with the field's name.
In both, the field is cut, never the words after it, and labels stand in one fixed order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fedperfit.protocol.system.errors import InputError

MAX_FIELD_WORDS = 768
"""OPPU's cut of a text field."""

NEWS_CATEGORIES = (
    *("food & drink", "sports", "education", "parents", "religion", "travel", "business", "crime"),
    *("science & technology", "culture & arts", "entertainment", "politics", "women"),
    *("style & beauty", "healthy living"),
)
MOVIE_TAGS = (
    *("sci-fi", "based on a book", "comedy", "action", "twist ending", "dystopia", "dark comedy"),
    *("classic", "psychology", "fantasy", "romance", "thought-provoking", "social commentary"),
    *("violence", "true story"),
)
SCORES = ("1", "2", "3", "4", "5")


class AnswerKind(StrEnum):
    """What an answer is, and so how it is scored."""

    CATEGORY = "category"
    RATING = "rating"
    TEXT = "text"


class PromptForm(StrEnum):
    """Which template turns a field into a prompt."""

    LAMP = "lamp"
    OPPU = "oppu"


@dataclass(frozen=True)
class Pair:
    """One training example: the loss is on the target and the end token only."""

    prompt: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One LaMP task."""

    name: str
    kind: AnswerKind
    field: str
    """The history item's key that a prompt asks about."""
    answer: str
    """The history item's key that is the target."""
    instruction: str
    """What stands before the field in both forms, with the label list where there is one."""
    marker: str
    """The word before the field in the benchmark's own questions: `article: `."""
    cue: str
    """OPPU's closing word: `category:`."""
    labels: tuple[str, ...] = ()
    oppu_instruction: str = ""
    """Where OPPU words the instruction differently from the benchmark."""
    free_history: bool = False
    """History items hold only a target (LaMP-7): the prompt of a history item is the cue alone."""

    def item_pair(self, item: Mapping[str, Any], form: PromptForm) -> Pair:
        """A history item as a training pair; raises InputError naming a missing field."""
        for key in (self.field, self.answer):
            if not isinstance(item.get(key), str | int):
                raise InputError(f"{self.name}: a history item has no text field {key!r}")
        if self.free_history:
            return self._pair(_close("", self.cue, form), str(item[self.answer]), form)
        return self._pair(self._prompt(str(item[self.field]), form), str(item[self.answer]), form)

    def query_pair(self, query: str, gold: str, form: PromptForm) -> Pair:
        """A benchmark question and its gold answer as a pair; `gold` may be empty at test time."""
        return self._pair(self._prompt(self.query_field(query), form), gold, form)

    def query_field(self, query: str) -> str:
        """The text a benchmark question asks about.

        Raises InputError for another task's question, without quoting it.
        """
        _, marker, field = query.partition(self.marker)
        if not marker:
            raise InputError(f"{self.name}: a question lacks {self.marker.strip()!r}")
        return field

    def parse(self, answer: str) -> str | None:
        """The label an answer names, exactly after stripping; None when it names none."""
        answer = answer.strip()
        if self.kind is AnswerKind.TEXT:
            return answer
        return answer if answer in self.labels else None

    def target(self, label: str, form: PromptForm) -> str:
        """The target text of an answer, led by the space OPPU's cue needs."""
        return f" {label}" if form is PromptForm.OPPU else label

    def _pair(self, prompt: str, target: str, form: PromptForm) -> Pair:
        return Pair(prompt, self.target(cut_words(target), form))

    def _prompt(self, field: str, form: PromptForm) -> str:
        instruction = self.instruction
        if form is PromptForm.OPPU:
            instruction = self.oppu_instruction or instruction
        return _close(instruction + cut_words(field), self.cue, form)


def _close(text: str, cue: str, form: PromptForm) -> str:
    if form is PromptForm.OPPU or not text:
        text = f"{text} {cue}".lstrip()
    return text + "\n" if form is PromptForm.LAMP else text


def cut_words(text: str, words: int = MAX_FIELD_WORDS) -> str:
    """At most `words` blank-separated words of `text`; unchanged when it has no more."""
    parts = text.split()
    return text if len(parts) <= words else " ".join(parts[:words])


def _choose(noun: str, plural: str, thing: str, labels: tuple[str, ...], marker: str) -> str:
    return (
        f"Which {noun} does this {thing} relate to among the following {plural}? Just answer with "
        f"the {noun} name without further explanation. {plural}: [{', '.join(labels)}] {marker}"
    )


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="LaMP_2N",
            kind=AnswerKind.CATEGORY,
            field="text",
            answer="category",
            marker="article: ",
            cue="category:",
            labels=NEWS_CATEGORIES,
            instruction=_choose("category", "categories", "article", NEWS_CATEGORIES, "article: "),
        ),
        Task(
            name="LaMP_2M",
            kind=AnswerKind.CATEGORY,
            field="description",
            answer="tag",
            marker="description: ",
            cue="tag:",
            labels=MOVIE_TAGS,
            instruction=_choose("tag", "tags", "movie", MOVIE_TAGS, "description: "),
        ),
        Task(
            name="LaMP_3",
            kind=AnswerKind.RATING,
            field="text",
            answer="score",
            marker="review: ",
            cue="score:",
            labels=SCORES,
            instruction="What is the score of the following review on a scale of 1 to 5? just answer "
            "with 1, 2, 3, 4, or 5 without further explanation. review: ",
        ),
        Task(
            name="LaMP_4",
            kind=AnswerKind.TEXT,
            field="text",
            answer="title",
            marker="article: ",
            cue="headline:",
            instruction="Generate a headline for the following article: ",
            oppu_instruction="Generate a headline for the following article. article: ",
        ),
        Task(
            name="LaMP_5",
            kind=AnswerKind.TEXT,
            field="abstract",
            answer="title",
            marker="paper: ",
            cue="title:",
            instruction="Generate a title for the following abstract of a paper: ",
            oppu_instruction="Generate a title for the following abstract of a paper. abstract: ",
        ),
        Task(
            name="LaMP_7",
            kind=AnswerKind.TEXT,
            field="text",
            answer="text",
            marker="before or after it: ",
            cue="tweet:",
            instruction="Paraphrase the following tweet without any explanation before or after it: ",
            free_history=True,
        ),
    )
}


def task_by_name(name: str) -> Task:
    """The task called `name`, e.g. `LaMP_2M`; raises InputError listing the tasks there are."""
    if name not in TASKS:
        raise InputError(f"unknown task {name!r}: expected one of {', '.join(TASKS)}")
    return TASKS[name]
