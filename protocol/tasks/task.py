"""A task: how an item becomes a prompt and a target, and an answer a label.

In every form of the prompts a long field of what is learned is cut, never the words after it, and labels
stand in one fixed order.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import regex

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks.answers import AnswerKind, Estimate
from fedperfit.protocol.tasks.conversations import as_text, asked_turns, turns_of
from fedperfit.protocol.tasks.metrics import DEFAULT_METRICS
from fedperfit.protocol.tasks.prompt import SYSTEM, USER, Conversation, Prompt, Turn, asking
from fedperfit.protocol.tasks.task_file import read_table
from fedperfit.protocol.tasks.templates import LABELS
from fedperfit.protocol.tasks.text_metrics import UNSPACED
from fedperfit.protocol.tasks.wording import (
    ChameleonWording,
    PromptForm,
    Templates,
    Wording,
    body,
    templates,
    wording,
)

MAX_LEARNED_WORDS = 768
"""Most words of a text that is learned, as in OPPU; what is asked is asked whole."""
_WORD = regex.compile(rf"[{UNSPACED}]|[^\s\x1c-\x1f{UNSPACED}]{{1,32}}")
"""A word, a letter of a script without blanks, or a part of what is longer than any word."""


@dataclass(frozen=True)
class Pair:
    """One training example: the loss is on the target and the end token only."""

    prompt: Prompt
    target: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A task as its file states it; two are equal when they mean the same."""

    name: str
    """Name in its file, e.g. `LaMP_2M`."""
    digest: str
    """SHA-256 of the values in its file, whatever their order and the comments beside them."""
    id: str
    """Name of a task that ships; of another, name and beginning of the digest: equal ids mean equal tasks."""
    reference: str
    """What `task_by_name` makes it of again anywhere: the name where it ships, else the text of its file."""
    kind: AnswerKind
    """Kind of its answers."""
    fields: tuple[str, ...]
    """Fields of an item that a prompt asks about."""
    answer: str
    """Field of an item that holds the target."""
    instruction: str
    """Text before the fields, with the list of labels if there is one."""
    marker: str
    """End of the instruction in questions that the data word themselves; empty for bare questions."""
    labels: tuple[str, ...]
    """All possible answers; empty for free text."""
    estimate: Estimate
    """Which of the labels is the answer."""
    metrics: tuple[str, ...]
    """Names of its metrics, the main one first."""
    answer_tokens: int
    """Most tokens of an answer that the model writes."""
    conversation: str
    """Role whose turns of conversations are learned; empty for a task of questions."""
    free_history: bool
    """Whether history items hold only a target (LaMP-7): their prompt is then the cue alone."""
    templates: Mapping[PromptForm, Templates]
    wording: Wording
    """Words of other methods' prompts."""
    body: str
    """Template of the fields alone."""

    @classmethod
    def read(cls, text: str, source: str, shipped: bool = False) -> "Task":
        """Read a task's file.

        Args:
            text: TOML.
            source: Name of the file, for errors.
            shipped: Whether it is one of those that ship.

        Raises:
            MalformedFileError: In one line, if it is not the file of a task.
        """
        table = read_table(text, source)
        values = table.model_dump(mode="json", by_alias=True, exclude_unset=True)
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        listed = {LABELS: ", ".join(table.labels)}
        return cls(
            name=table.name,
            digest=digest,
            id=table.name if shipped else f"{table.name}-{digest[:12]}",
            reference=table.name if shipped else text,
            kind=table.kind,
            fields=tuple(table.fields),
            answer=table.target,
            instruction=table.instruction.format(**listed),
            marker=table.marker,
            labels=tuple(table.labels),
            estimate=table.estimate,
            metrics=tuple(table.metrics) or DEFAULT_METRICS[table.kind],
            answer_tokens=table.answer_tokens,
            conversation=table.conversation,
            free_history=table.free_history,
            templates=templates(table),
            wording=_listing(wording(table), listed),
            body=body(table),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def field(self) -> str:
        """Field that a prompt asks about; the first where there are several."""
        return self.fields[0]

    def item_pair(self, item: Mapping[str, Any], form: PromptForm) -> Pair:
        """Make a training pair of a history item.

        Args:
            item: The item's fields.
            form: Template of the prompt.

        Raises:
            InputError: Naming a missing field.
        """
        for key in (*self.fields, self.answer):
            if not isinstance(item.get(key), str | int):
                raise InputError(f"{self.name}: a history item has no text field {key!r}")
        return self._pair(self.templates[form].item, item, str(item[self.answer]), form)

    def asking(self, text: str, form: PromptForm) -> Prompt:
        """Make the prompt that says a text of another method's, in whose words the task has no part.

        Args:
            text: Whole text.
            form: Form of the prompts.
        """
        return asking(text) if form is PromptForm.CHAT else text

    def query_pair(self, query: str, gold: str, form: PromptForm) -> Pair:
        """Make a training pair of a question and its gold answer.

        Args:
            query: The question as the data word it.
            gold: Its answer.
            form: Template of the prompt.

        Raises:
            InputError: If it is another task's question, without quoting it.
        """
        return self._pair(self.templates[form].prompt, self.query_fields(query), gold, form)

    def asked(self, query: str, form: PromptForm) -> Prompt:
        """Make the prompt that asks a question; it is that of a training pair, with all of its words.

        Args:
            query: The question as the data word it.
            form: Template of the prompt.

        Raises:
            InputError: If it is another task's question, without quoting it.
        """
        if self.conversation:
            return self.next_turn(asked_turns(query), form)
        return self._worded(self.templates[form].prompt, self.query_fields(query), form)

    def query_fields(self, query: str) -> dict[str, str]:
        """Return the fields a question asks about.

        Raises:
            InputError: If it is another task's question, without quoting it.
        """
        if self.conversation:
            return {self.field: as_text(asked_turns(query))}
        if len(self.fields) == 1:
            return {self.field: self._bare(query)}
        try:
            values = json.loads(query)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or not all(isinstance(values.get(key), str) for key in self.fields):
            raise InputError(f"{self.name}: a question is a JSON object with {', '.join(self.fields)}")
        return {key: values[key] for key in self.fields}

    def asks(self, text: str) -> bool:
        """Tell whether a text that may be of anything is a question of this task, as its data word them.

        Args:
            text: Text of a message.
        """
        if self.conversation:
            return False
        if len(self.fields) > 1:
            try:
                self.query_fields(text)
            except InputError:
                return False
            return True
        listed = ", ".join(self.labels)  # questions of the data may list them in another order
        opening = self.instruction.partition(listed)[0] if listed else self.instruction
        opening = opening.removesuffix(self.marker).strip()
        return bool(opening) and text.startswith(opening) and self.marker in text

    def question(self, item: Mapping[str, Any]) -> str:
        """Word a question about an item, whatever its answer is."""
        if len(self.fields) == 1:
            return self.instruction + str(item[self.field])
        return json.dumps({key: str(item[key]) for key in self.fields}, ensure_ascii=False)

    def text(self, item: Mapping[str, Any]) -> str:
        """Return what is asked about in an item as one text."""
        if self.conversation:
            return "\n".join(turn.text for turn in turns_of(item[self.field]))
        return self.body.format(**{key: item[key] for key in self.fields})

    def shown(self, template: str, item: Mapping[str, Any]) -> str:
        """Show an item in another method's words, with its answer.

        Args:
            template: Text with the item's fields in braces, and perhaps the list of labels.
            item: The item's fields.
        """
        return template.format(**{**item, LABELS: ", ".join(self.labels)})

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
        return self.templates[form].target.format(**{self.answer: label})

    def _bare(self, query: str) -> str:
        if not self.marker:
            return query.removeprefix(self.instruction)
        _, marker, text = query.partition(self.marker)
        if not marker:
            raise InputError(f"{self.name}: a question lacks {self.marker.strip()!r}")
        return text

    def next_turn(self, turns: Conversation, form: PromptForm) -> Prompt:
        """Make the prompt that asks what is said next in a conversation, of a task of conversations.

        Args:
            turns: The conversation so far.
            form: Form of the prompts; but for `chat` it is a text, with each turn on a line of its own.
        """
        if form is PromptForm.LAMP:
            return "".join(f"{turn.text}\n" for turn in turns)
        if form is PromptForm.OPPU:
            return "".join(f"{turn.role}: {turn.text}\n" for turn in turns) + "assistant:"
        system = self.templates[form].system
        spoken = any(turn.role == SYSTEM for turn in turns)
        return turns if spoken or not system else (Turn(SYSTEM, system), *turns)

    def specimen(self, text: str) -> dict[str, str]:
        """Make an item with a text in every field, for what all prompts have in common.

        Args:
            text: Text of the fields.
        """
        shown = as_text((Turn(USER, text),)) if self.conversation else text
        return {**dict.fromkeys(self.fields, shown), self.answer: "1"}

    def _pair(self, template: str, item: Mapping[str, Any], target: str, form: PromptForm) -> Pair:
        target = self.target(first_words(target), form)
        if self.conversation:
            turns = turns_of(item[self.field])
            begun = tuple(turn._replace(text=first_words(turn.text)) for turn in turns)
            return Pair(self.next_turn(begun, form), target)
        values = {key: first_words(str(item[key])) for key in self.fields}
        return Pair(self._worded(template, values, form), target)

    def _worded(self, template: str, values: Mapping[str, str], form: PromptForm) -> Prompt:
        """Put the fields of an item into a template."""
        listed = {LABELS: ", ".join(self.labels)}
        text = template.format(**listed, **values)
        if form is not PromptForm.CHAT:
            return text
        return asking(text, self.templates[form].system.format(**listed))


def _listing(words: Wording, listed: Mapping[str, str]) -> Wording:
    """Put the list of labels into the words that show no item."""
    said = words.chameleon
    return Wording(
        sentence=words.sentence,
        joint=words.joint.format(**listed),
        profile=words.profile.format(**listed),
        chameleon=ChameleonWording(
            opening=said.opening.format(**listed),
            item=said.item,
            asked=said.asked.format(**listed),
            question=said.question.format(**listed),
            guess=said.guess.format(**listed),
            closing=said.closing.format(**listed),
        ),
    )


def first_words(text: str, words: int = MAX_LEARNED_WORDS) -> str:
    """Return a text up to the end of so many words, with its lines and blanks as they are.

    Letters of scripts without blanks are a word each, and what is longer than any word is several.

    Args:
        text: Text of a field or a message.
        words: Most words to keep.
    """
    if len(text) <= words:
        return text
    last = next(islice(_WORD.finditer(text), words - 1, words), None)
    return text if last is None or not text[last.end() :].strip() else text[: last.end()]
