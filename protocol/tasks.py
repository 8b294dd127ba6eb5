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
"""Most words of a text field in a prompt, as in OPPU."""

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
    """The kind of a task's answers, which decides how they are scored."""

    CATEGORY = "category"
    RATING = "rating"
    TEXT = "text"


class PromptForm(StrEnum):
    """The template that turns a field into a prompt."""

    LAMP = "lamp"
    OPPU = "oppu"


@dataclass(frozen=True)
class Pair:
    """One training example: the loss is on the target and the end token only."""

    prompt: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of LaMP (Salemi et al., 2024): how items become prompts, and answers labels or texts."""

    name: str
    """LaMP's name of the task, e.g. `LaMP_2M`."""
    kind: AnswerKind
    """Kind of its answers."""
    field: str
    """Key of the history item's text that a prompt asks about."""
    answer: str
    """Key of the history item's target."""
    instruction: str
    """Text before the field in both forms, with the list of labels if there is one."""
    marker: str
    """Word before the field in the benchmark's own questions, e.g. `article: `."""
    cue: str
    """Last word of OPPU's prompts, e.g. `category:`."""
    labels: tuple[str, ...] = ()
    """All possible answers; empty for free text."""
    oppu_instruction: str = ""
    """Instruction of OPPU's prompts; empty if it is the benchmark's."""
    free_history: bool = False
    """Whether history items hold only a target (LaMP-7): their prompt is then the cue alone."""

    def item_pair(self, item: Mapping[str, Any], form: PromptForm) -> Pair:
        """Make a training pair of a history item.

        Args:
            item: The item's fields.
            form: Template of the prompt.

        Raises:
            InputError: Naming a missing field.
        """
        for key in (self.field, self.answer):
            if not isinstance(item.get(key), str | int):
                raise InputError(f"{self.name}: a history item has no text field {key!r}")
        if self.free_history:
            return self._pair(_close("", self.cue, form), str(item[self.answer]), form)
        return self._pair(self._prompt(str(item[self.field]), form), str(item[self.answer]), form)

    def query_pair(self, query: str, gold: str, form: PromptForm) -> Pair:
        """Make a pair of a benchmark question and its gold answer.

        Args:
            query: The question as the benchmark words it.
            gold: Its answer; may be empty at test time.
            form: Template of the prompt.

        Raises:
            InputError: If it is another task's question, without quoting it.
        """
        return self._pair(self._prompt(self.query_field(query), form), gold, form)

    def query_field(self, query: str) -> str:
        """Return the text a benchmark question asks about.

        Raises:
            InputError: If it is another task's question, without quoting it.
        """
        _, marker, field = query.partition(self.marker)
        if not marker:
            raise InputError(f"{self.name}: a question lacks {self.marker.strip()!r}")
        return field

    def parse(self, answer: str) -> str | None:
        """Return the label an answer names, exactly after stripping, or None; free text is only stripped."""
        answer = answer.strip()
        if self.kind is AnswerKind.TEXT:
            return answer
        return answer if answer in self.labels else None

    def target(self, label: str, form: PromptForm) -> str:
        """Return the target text of an answer, with the leading space OPPU's cue needs.

        Args:
            label: A label or a text.
            form: Template of the prompt.
        """
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
    """Cut a text after so many blank-separated words; a shorter one is returned unchanged.

    Args:
        text: Text of a field.
        words: Most words to keep.
    """
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
"""All tasks by name."""


def task_by_name(name: str) -> Task:
    """Return the task called `name`, e.g. `LaMP_2M`.

    Raises:
        InputError: Listing all tasks, if there is none of that name.
    """
    if name not in TASKS:
        raise InputError(f"unknown task {name!r}: expected one of {', '.join(TASKS)}")
    return TASKS[name]
